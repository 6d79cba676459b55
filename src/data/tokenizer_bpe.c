#include "base/mem.h"
#include "data/tokenizer_parts.h"

#include <string.h>

/* Byte-level BPE: of all neighbours that may be merged, merge those of the lowest rank, the
 * leftmost of equals; then look again. A word of up to SMALL symbols is scanned for the best pair
 * each time; a longer one keeps its candidates in a heap, O(n log n). Both orders are the same: a
 * token's text is the sum of its parts' texts and no two tokens share a text, so a pair that has
 * changed since it became a candidate can no longer make the same token. */
enum { SMALL = 48 };

#define NO_MERGE UINT32_MAX

void lrd_bpe_release(lrd_bpe_t *bpe)
{
    lrd_free(bpe->slot);
    lrd_free(bpe->merged);
    *bpe = (lrd_bpe_t){0};
}

lrd_status_t lrd_bpe_reserve(lrd_bpe_t *bpe, uint32_t n_ranks)
{
    lrd_status_t status = LRD_OK;
    size_t n_slots = 16;
    while (n_slots < 2 * (size_t)n_ranks)
        n_slots *= 2;
    LRD_CHECK(n_slots <= UINT32_MAX, LRD_ERR_NO_MEMORY, "out of memory: %u merges", n_ranks);
    LRD_NEW(bpe->merged, n_ranks);
    LRD_NEW(bpe->slot, n_slots);
    memset(bpe->slot, 0xff, n_slots * sizeof *bpe->slot);
    bpe->slot_mask = (uint32_t)(n_slots - 1);
    bpe->n_ranks = n_ranks;
out:
    return status;
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* The slot of a pair, or the free one where it belongs. */
static lrd_merge_t *slot_of(const lrd_bpe_t *bpe, uint64_t pair)
{
    uint64_t h = pair * 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
    uint32_t at = (uint32_t)h & bpe->slot_mask;
    while (bpe->slot[at].pair != pair && bpe->slot[at].pair != UINT64_MAX)
        at = (at + 1) & bpe->slot_mask;
    return &bpe->slot[at];
}

void lrd_bpe_add(lrd_bpe_t *bpe, uint32_t rank, int32_t left, int32_t right, int32_t id)
{
    lrd_merge_t *slot = slot_of(bpe, pair_of(left, right));
    slot->pair = pair_of(left, right);
    slot->rank = rank;
    bpe->merged[rank] = id;
}

static uint32_t rank_of(const lrd_bpe_t *bpe, int32_t left, int32_t right)
{
    return slot_of(bpe, pair_of(left, right))->rank; /* of a free slot: NO_MERGE */
}

void lrd_bpe_scratch_release(lrd_bpe_scratch_t *scratch)
{
    lrd_free(scratch->symbol);
    lrd_free(scratch->first);
    lrd_free(scratch->heap);
    lrd_buf_release(&scratch->text);
    *scratch = (lrd_bpe_scratch_t){0};
}

/* The symbols to start from: id[] and, in bytes from the start of the piece, at[].
 * Returns how many, at most n. */
static int32_t first_symbols(const lrd_bpe_t *bpe, const char *piece, int32_t n, int32_t *id,
                             int32_t *at)
{
    int32_t m = 0;
    bool after_unk = false;
    for (int32_t i = 0; i < n; i++) {
        int32_t symbol = bpe->byte_id[(uint8_t)piece[i]];
        const bool is_unk = symbol < 0;
        if (is_unk) {
            if (bpe->unk_id < 0 || (after_unk && bpe->fuse_unk))
                continue;
            symbol = bpe->unk_id;
        }
        after_unk = is_unk;
        id[m] = symbol;
        at[m++] = i;
    }
    return m;
}

static void encode_small(const lrd_bpe_t *bpe, const char *piece, int32_t n, int32_t begin,
                         lrd_tokens_t *tokens)
{
    int32_t id[SMALL], at[SMALL];
    uint32_t rank[SMALL];
    int32_t m = first_symbols(bpe, piece, n, id, at);
    for (int32_t i = 0; i + 1 < m; i++)
        rank[i] = rank_of(bpe, id[i], id[i + 1]);
    while (m > 1) {
        int32_t best = 0;
        for (int32_t i = 1; i + 1 < m; i++)
            best = rank[i] < rank[best] ? i : best;
        if (rank[best] == NO_MERGE)
            break;
        id[best] = bpe->merged[rank[best]];
        m--;
        for (int32_t i = best + 1; i < m; i++) {
            id[i] = id[i + 1];
            at[i] = at[i + 1];
        }
        for (int32_t i = best + 1; i + 1 < m; i++)
            rank[i] = rank[i + 1];
        if (best > 0)
            rank[best - 1] = rank_of(bpe, id[best - 1], id[best]);
        if (best + 1 < m)
            rank[best] = rank_of(bpe, id[best], id[best + 1]);
    }
    for (int32_t i = 0; i < m; i++) {
        if (tokens->with_begins)
            tokens->begin[tokens->n] = begin + at[i];
        tokens->id[tokens->n++] = id[i];
    }
}

/* ---- long words: a binary heap of rank << 32 | position -------------------------------------- */

static void heap_down(uint64_t *heap, size_t n, size_t i)
{
    const uint64_t item = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= item)
            break;
        heap[i] = heap[child];
    }
    heap[i] = item;
}

static void heap_push(lrd_bpe_scratch_t *scratch, uint64_t item)
{
    size_t i = scratch->n_heap++;
    for (; i > 0 && scratch->heap[(i - 1) / 2] > item; i = (i - 1) / 2)
        scratch->heap[i] = scratch->heap[(i - 1) / 2];
    scratch->heap[i] = item;
}

static uint64_t heap_pop(lrd_bpe_scratch_t *scratch)
{
    const uint64_t top = scratch->heap[0];
    scratch->heap[0] = scratch->heap[--scratch->n_heap];
    if (scratch->n_heap > 0)
        heap_down(scratch->heap, scratch->n_heap, 0);
    return top;
}

static lrd_status_t scratch_reserve(lrd_bpe_scratch_t *scratch, size_t n_symbols)
{
    lrd_status_t status = LRD_OK;
    if (n_symbols > scratch->capacity) {
        void *grown;
        LRD_ALLOC(grown, lrd_realloc_array(scratch->symbol, n_symbols, sizeof *scratch->symbol));
        scratch->symbol = grown;
        LRD_ALLOC(grown, lrd_realloc_array(scratch->first, 2 * n_symbols, sizeof *scratch->first));
        scratch->first = grown;
        LRD_ALLOC(grown, lrd_realloc_array(scratch->heap, 2 * n_symbols, sizeof *scratch->heap));
        scratch->heap = grown;
        scratch->capacity = n_symbols;
    }
out:
    return status;
}

/* Looks at the pair that begins at position i, anew. */
static void consider(const lrd_bpe_t *bpe, lrd_bpe_scratch_t *scratch, int32_t i)
{
    lrd_bpe_symbol_t *symbol = scratch->symbol;
    symbol[i].rank =
        symbol[i].right < 0 ? NO_MERGE : rank_of(bpe, symbol[i].id, symbol[symbol[i].right].id);
    if (symbol[i].rank != NO_MERGE)
        heap_push(scratch, (uint64_t)symbol[i].rank << 32 | (uint32_t)i);
}

/* At most m - 1 candidates to begin with, and two more for each of at most m - 1 merges, each of
 * which takes one away: the heap never holds more than 2 m. */
static lrd_status_t encode_long(const lrd_bpe_t *bpe, lrd_bpe_scratch_t *scratch, const char *piece,
                                int32_t n, int32_t begin, lrd_tokens_t *tokens)
{
    lrd_status_t status = LRD_OK;
    LRD_TRY(scratch_reserve(scratch, (size_t)n));
    lrd_bpe_symbol_t *symbol = scratch->symbol;
    int32_t *id = scratch->first, *at = scratch->first + n;
    const int32_t m = first_symbols(bpe, piece, n, id, at);
    for (int32_t i = 0; i < m; i++)
        symbol[i] = (lrd_bpe_symbol_t){
            .id = id[i], .at = at[i], .left = i - 1, .right = i + 1 < m ? i + 1 : -1};
    scratch->n_heap = 0;
    for (int32_t i = 0; i < m; i++)
        consider(bpe, scratch, i);
    while (scratch->n_heap > 0) {
        const uint64_t top = heap_pop(scratch);
        const int32_t i = (int32_t)(uint32_t)top;
        if (symbol[i].rank != (uint32_t)(top >> 32))
            continue; /* the pair has changed, or is gone */
        const int32_t gone = symbol[i].right;
        symbol[i].id = bpe->merged[symbol[i].rank];
        symbol[i].right = symbol[gone].right;
        symbol[gone].rank = NO_MERGE;
        if (symbol[i].right >= 0)
            symbol[symbol[i].right].left = i;
        consider(bpe, scratch, i);
        if (symbol[i].left >= 0)
            consider(bpe, scratch, symbol[i].left);
    }
    for (int32_t i = m > 0 ? 0 : -1; i >= 0; i = symbol[i].right) {
        if (tokens->with_begins)
            tokens->begin[tokens->n] = begin + symbol[i].at;
        tokens->id[tokens->n++] = symbol[i].id;
    }
out:
    return status;
}

/* The model's token that is the whole piece, or -1. */
static lrd_status_t whole_piece(const lrd_tokenizer_t *tokenizer, lrd_buf_t *text,
                                const char *piece, int32_t n, int32_t *id_out)
{
    lrd_status_t status = LRD_OK;
    lrd_buf_clear(text);
    LRD_TRY(lrd_buf_reserve(text, 2 * (size_t)n));
    for (int32_t i = 0; i < n; i++)
        text->size += lrd_byte_symbol((uint8_t)piece[i], text->data + text->size);
    const int64_t found = lrd_vocab_find(&tokenizer->vocab, text->data, text->size);
    const bool is_model = found >= 0 && found < tokenizer->vocab.n_model;
    *id_out = is_model ? tokenizer->vocab.token[found].id : -1;
out:
    return status;
}

lrd_status_t lrd_bpe_encode(const lrd_tokenizer_t *tokenizer, lrd_bpe_scratch_t *scratch,
                            const char *piece, int32_t n, int32_t begin, lrd_tokens_t *tokens)
{
    lrd_status_t status = LRD_OK;
    const lrd_bpe_t *bpe = &tokenizer->bpe;
    int32_t whole = -1;
    if (bpe->ignore_merges)
        LRD_TRY(whole_piece(tokenizer, &scratch->text, piece, n, &whole));
    if (whole >= 0) {
        if (tokens->with_begins)
            tokens->begin[tokens->n] = begin;
        tokens->id[tokens->n++] = whole;
    } else if (n <= SMALL) {
        encode_small(bpe, piece, n, begin, tokens);
    } else {
        LRD_TRY(encode_long(bpe, scratch, piece, n, begin, tokens));
    }
out:
    return status;
}
