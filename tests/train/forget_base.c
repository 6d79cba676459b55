/* forget_base STATE.h5: makes it a checkpoint of before the base model was kept in it. */
#include <hdf5.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    const hid_t file = argc == 2 ? H5Fopen(argv[1], H5F_ACC_RDWR, H5P_DEFAULT) : -1;
    if (file < 0 || H5Adelete(file, "model_commit") < 0 ||
        H5Adelete(file, "model_fingerprint") < 0 || H5Fclose(file) < 0) {
        fprintf(stderr, "forget_base: there is nothing to forget\n");
        return 1;
    }
    return 0;
}
