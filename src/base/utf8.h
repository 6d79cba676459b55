/* base/utf8.h -- reading UTF-8 one character at a time. */
#ifndef LRD_BASE_UTF8_H
#define LRD_BASE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Length in bytes of the character at the start of text[0..bytes), bytes > 0, and its code point.
 * Where no character starts there, *code_out is -1 and the length is that of the maximal ill-formed
 * part, for which one U+FFFD stands (the Unicode standard, section 3.9, "U+FFFD substitution of
 * maximal subparts"; Python and Rust do the same). */
static inline size_t lrd_utf8_next(const char *text, size_t bytes, int32_t *code_out)
{
    const uint8_t *s = (const uint8_t *)text;
    const uint8_t first = s[0]; /* NOLINT(clang-analyzer-core.NullDereference): bytes > 0 */
    *code_out = -1;
    if (first < 0x80) {
        *code_out = first;
        return 1;
    }
    if (first < 0xc2 || first > 0xf4)
        return 1; /* a continuation, an overlong form, or beyond U+10FFFF */
    const size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    /* The second byte's range shuts out overlong forms, surrogates and what is beyond U+10FFFF. */
    uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    int32_t code = first & (0x7f >> length);
    for (size_t i = 1; i < length; i++) {
        if (i == bytes || s[i] < low || s[i] > high)
            return i;
        code = code << 6 | (s[i] & 0x3f);
        low = 0x80;
        high = 0xbf;
    }
    *code_out = code;
    return length;
}

#endif /* LRD_BASE_UTF8_H */
