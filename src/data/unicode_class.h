/* data/unicode_class.h -- two classes of characters, as the regular expressions of the Rust crate
 * `regex` know them, which decide where added tokens match. */
#ifndef LRD_DATA_UNICODE_CLASS_H
#define LRD_DATA_UNICODE_CLASS_H

#include <stdbool.h>
#include <stdint.h>

/* \w: Alphabetic, M, Nd, Pc or Join_Control, of Unicode 16.0. */
bool lrd_unicode_is_word(int32_t code);

/* \s: White_Space, which has been the same since Unicode 6.3. */
bool lrd_unicode_is_white(int32_t code);

#endif /* LRD_DATA_UNICODE_CLASS_H */
