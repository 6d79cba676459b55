#include "data/parquet_thrift.h"

/* Types that need no name outside. */
enum {
    STOP = 0,
    BYTE = 3,
    INT16 = 4,
    INT32 = 5,
    INT64 = 6,
    DOUBLE = 7,
    LIST = 9,
    SET = 10,
    MAP = 11
};
enum { MAX_DEPTH = 32 };

static uint8_t get_byte(lrd_thrift_t *t)
{
    if (t->failed || t->at == t->end) {
        t->failed = true;
        return 0;
    }
    return *t->at++;
}

uint64_t lrd_thrift_varint(lrd_thrift_t *t)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        const uint64_t byte = get_byte(t);
        if (shift == 63 && byte > 1)
            break;
        value |= (byte & 0x7fu) << shift;
        if ((byte & 0x80u) == 0)
            return t->failed ? 0 : value;
    }
    t->failed = true;
    return 0;
}

int64_t lrd_thrift_signed(uint64_t zigzag)
{
    return (int64_t)((zigzag >> 1) ^ (0 - (zigzag & 1)));
}

bool lrd_thrift_field(lrd_thrift_t *t, int *id, int *type_out)
{
    const uint8_t head = get_byte(t);
    if (t->failed || head == STOP)
        return false;
    const int64_t next =
        head >> 4 != 0 ? *id + (head >> 4) : lrd_thrift_signed(lrd_thrift_varint(t));
    if (next < INT16_MIN || next > INT16_MAX)
        t->failed = true;
    *id = (int)next;
    *type_out = head & 0x0f;
    return !t->failed;
}

int64_t lrd_thrift_int(lrd_thrift_t *t, int type)
{
    if (type == BYTE)
        return (int8_t)get_byte(t);
    if (type != INT16 && type != INT32 && type != INT64)
        t->failed = true;
    return lrd_thrift_signed(lrd_thrift_varint(t));
}

bool lrd_thrift_bool(lrd_thrift_t *t, int type)
{
    if (type != LRD_THRIFT_TRUE && type != LRD_THRIFT_FALSE)
        t->failed = true;
    return type == LRD_THRIFT_TRUE;
}

static void forward(lrd_thrift_t *t, uint64_t bytes)
{
    if (t->failed || bytes > (uint64_t)(t->end - t->at))
        t->failed = true;
    else
        t->at += bytes;
}

lrd_text_t lrd_thrift_text(lrd_thrift_t *t, int type)
{
    if (type != LRD_THRIFT_TEXT)
        t->failed = true;
    const uint64_t bytes = lrd_thrift_varint(t);
    const char *begin = (const char *)t->at;
    forward(t, bytes);
    return t->failed ? (lrd_text_t){"", 0} : (lrd_text_t){begin, (size_t)bytes};
}

int64_t lrd_thrift_list(lrd_thrift_t *t, int type, int *element_type_out)
{
    if (type != LIST && type != SET)
        t->failed = true;
    const uint8_t head = get_byte(t);
    const uint64_t n = head >> 4 == 15 ? lrd_thrift_varint(t) : head >> 4;
    *element_type_out = head & 0x0f;
    if (t->failed || n > (uint64_t)(t->end - t->at)) { /* each takes a byte or more */
        t->failed = true;
        return 0;
    }
    return (int64_t)n;
}

void lrd_thrift_struct(lrd_thrift_t *t, int type)
{
    if (type != LRD_THRIFT_STRUCT)
        t->failed = true;
}

static void skip(lrd_thrift_t *t, int type, int depth);

/* Of a list or a map: a truth value takes a byte there. */
static void skip_element(lrd_thrift_t *t, int type, int depth)
{
    if (type == LRD_THRIFT_TRUE || type == LRD_THRIFT_FALSE)
        get_byte(t);
    else
        skip(t, type, depth);
}

static void skip_list(lrd_thrift_t *t, int type, int depth)
{
    int element = 0;
    for (int64_t n = lrd_thrift_list(t, type, &element); n > 0 && !t->failed; n--)
        skip_element(t, element, depth);
}

static void skip_map(lrd_thrift_t *t, int depth)
{
    const uint64_t n = lrd_thrift_varint(t);
    const uint8_t types = n > 0 ? get_byte(t) : 0;
    for (uint64_t i = 0; i < n && !t->failed; i++) {
        skip_element(t, types >> 4, depth);
        skip_element(t, types & 0x0f, depth);
    }
}

static void skip(lrd_thrift_t *t, int type, int depth)
{
    int id = 0, field = 0;
    if (depth == MAX_DEPTH) {
        t->failed = true;
        return;
    }
    switch (type) {
    case LRD_THRIFT_TRUE:
    case LRD_THRIFT_FALSE:
        break;
    case BYTE:
        forward(t, 1);
        break;
    case INT16:
    case INT32:
    case INT64:
        lrd_thrift_varint(t);
        break;
    case DOUBLE:
        forward(t, 8);
        break;
    case LRD_THRIFT_TEXT:
        lrd_thrift_text(t, type);
        break;
    case LIST:
    case SET:
        skip_list(t, type, depth + 1);
        break;
    case MAP:
        skip_map(t, depth + 1);
        break;
    case LRD_THRIFT_STRUCT:
        while (lrd_thrift_field(t, &id, &field))
            skip(t, field, depth + 1);
        break;
    default:
        t->failed = true;
    }
}

void lrd_thrift_skip(lrd_thrift_t *t, int type)
{
    skip(t, type, 0);
}
