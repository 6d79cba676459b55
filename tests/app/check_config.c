/* check_config F.yaml...: reads and checks settings files.
 * check_config --keys: every key there is. */
#include "base/settings.h"

#include <stdio.h>
#include <string.h>

static lrd_status_t check(const char *path)
{
    lrd_status_t status = LRD_OK;
    lrd_settings_t *settings = NULL;
    LRD_TRY(lrd_settings_read(path, &settings));
    LRD_TRY(lrd_settings_check(settings));
    LRD_TRY(lrd_settings_require(settings, LRD_KEY_model_name_or_path));
    LRD_TRY(lrd_settings_require(settings, LRD_KEY_data_train_file));
out:
    lrd_settings_free(settings);
    return status;
}

int main(int argc, char **argv)
{
    int failures = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--keys") == 0) {
            for (int key = 0; key < LRD_N_KEYS; key++)
                printf("%s\n", lrd_key_name((lrd_key_t)key));
            continue;
        }
        const lrd_status_t status = check(argv[i]);
        if (status != LRD_OK) {
            fprintf(stderr, "%s\n", lrd_error_text(status));
            failures++;
        }
    }
    return failures > 0;
}
