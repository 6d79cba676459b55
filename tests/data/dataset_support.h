/* tests/data/dataset_support.h -- the small data sets of tests/golden/data,
 * and what they must become. */
#ifndef LRD_TEST_DATASET_SUPPORT_H
#define LRD_TEST_DATASET_SUPPORT_H

#include "support/test_support.h"

#include "base/json.h"
#include "data/dataset.h"

extern const char squad_template[];
extern lrd_tokenizer_t *tokenizer; /* of tests/golden/data */
extern json_t *golden;             /* cases.json */

/* For cmocka_run_group_tests: loads and frees the two above. */
int set_up_golden(void **state);
int tear_down_golden(void **state);

lrd_data_settings_t squad_settings(void);

/* The spec of the small SQuAD file; the caller may change `settings`. */
lrd_dataset_spec_t squad_spec(lrd_data_settings_t *settings);

/* The settings of a case in cases.json. */
lrd_data_settings_t settings_of(const json_t *settings);

const char *text_of(const json_t *object, const char *key);
int64_t int_of(const json_t *object, const char *key);

/* Compares a data set with the records of a case. */
void check_case(const lrd_dataset_t *set, const json_t *one);

#endif /* LRD_TEST_DATASET_SUPPORT_H */
