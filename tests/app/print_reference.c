/* Prints docs/configuration.md, which test_settings compares with the file:
 *
 *   build/cpu-release/tests/app/print_reference > docs/configuration.md
 */
#include "base/settings.h"

#include <stdio.h>

int main(void)
{
    lrd_buf_t buf = {0};
    const lrd_status_t status = lrd_settings_print_reference(&buf);
    if (status != LRD_OK)
        fprintf(stderr, "%s\n", lrd_error_text(status));
    else
        fwrite(buf.data, 1, buf.size, stdout);
    lrd_buf_release(&buf);
    return status == LRD_OK ? 0 : 1;
}
