/* tests/support/model_folder.h -- copies of model folders, to be spoiled or to be of another element
 * type. Everything fails the test that cannot be done. */
#ifndef LRD_TEST_MODEL_FOLDER_H
#define LRD_TEST_MODEL_FOLDER_H

#include "base/dtype.h"

/* Copies the files of a folder, through links. */
void test_copy_folder(const char *from, const char *to);

/* The same, with the tensors of its *.safetensors rounded to F32, F16 or BF16. */
void test_copy_folder_as(const char *from, const char *to, lrd_dtype_t dtype);

void test_put_file(const char *folder, const char *name, const char *content);

#endif /* LRD_TEST_MODEL_FOLDER_H */
