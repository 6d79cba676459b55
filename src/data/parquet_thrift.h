/* data/parquet_thrift.h -- Thrift's compact protocol, as far as Parquet's metadata needs it (private to data/parquet*.c).
 *
 *   int id = 0, type;
 *   while (lrd_thrift_field(&t, &id, &type)) {
 *       if (id == 1) n = lrd_thrift_int(&t, type); else lrd_thrift_skip(&t, type);
 *   }
 *   if (t.failed) ...
 *
 * The bytes may be anything. What cannot be read sets `failed`, which stays: every later read gives 0, a field loop ends,
 * and nothing behind `end` is touched.
 */
#ifndef LRD_DATA_PARQUET_THRIFT_H
#define LRD_DATA_PARQUET_THRIFT_H

#include "data/text.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct lrd_thrift {
    const uint8_t *at, *end;
    bool failed;
} lrd_thrift_t;

/* What a field or an element is. */
enum { LRD_THRIFT_TRUE = 1, LRD_THRIFT_FALSE = 2, LRD_THRIFT_TEXT = 8, LRD_THRIFT_STRUCT = 12 };

/* The next field of a struct; *id starts at 0. False: the struct ends, or reading failed. */
bool lrd_thrift_field(lrd_thrift_t *t, int *id, int *type_out);

/* The value of a field or element; it must be of such a type. Texts point into the bytes. */
int64_t lrd_thrift_int(lrd_thrift_t *t, int type);
bool lrd_thrift_bool(lrd_thrift_t *t, int type); /* of a field: a list keeps them otherwise */
lrd_text_t lrd_thrift_text(lrd_thrift_t *t, int type);
int64_t lrd_thrift_list(lrd_thrift_t *t, int type, int *element_type_out); /* number of elements */
void lrd_thrift_struct(lrd_thrift_t *t, int type);                         /* its fields follow */
void lrd_thrift_skip(lrd_thrift_t *t, int type);

/* A number without its sign, 7 bits a byte: Parquet's encodings have them too. */
uint64_t lrd_thrift_varint(lrd_thrift_t *t);

/* ... and the signed numbers that are stored as such. */
int64_t lrd_thrift_signed(uint64_t zigzag);

#endif /* LRD_DATA_PARQUET_THRIFT_H */
