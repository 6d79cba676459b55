/* A tuning file. The input takes the place of its products; the machine is this one's, or what the
 * input says where its first byte is 0. */
#include "fuzz/fuzz_folder.h"

#include "base/buf.h"
#include "kernels/cpu/cpu_tuning.h"
#include "kernels/tuning.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const micro_isa_t isa = {.name = "fuzz"};
    lrd_tuning_t read = {0};
    tuning_t *tuning = NULL;
    lrd_buf_t text = {0};
    char path[128], machine[160];
    bool native;
    if (size == 0)
        return 0;
    tuning_machine(&isa, machine);
    if (data[0] != 0)
        FUZZ_CHECK(lrd_buf_printf(&text, "{\"machine\": \"%s\", \"products\": ", machine) ==
                   LRD_OK);
    FUZZ_CHECK(lrd_buf_add(&text, data + 1, size - 1) == LRD_OK);
    if (data[0] != 0)
        FUZZ_CHECK(lrd_buf_add_text(&text, "}") == LRD_OK);
    fuzz_folder_put("file", text.data, text.size);
    snprintf(path, sizeof path, "%s/file", fuzz_folder);
    if (lrd_tuning_read(path, &read) == LRD_OK &&
        tuning_open(&read, path, &isa, &tuning) == LRD_OK) {
        FUZZ_CHECK(!tuning_find(tuning, 0, 5, false, &native)); /* products have a size */
        (void)tuning_find(tuning, 64, 64, true, &native);
    } else {
        FUZZ_CHECK(tuning == NULL);
    }
    tuning_free(tuning);
    lrd_tuning_release(&read);
    lrd_buf_release(&text);
    lrd_error_clear();
    return 0;
}
