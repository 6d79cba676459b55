/* data/tokenizer_parts.h -- what a tokenizer is made of; private to tokenizer_*.c and their tests.
 *
 *   part            file                  does
 *   lrd_vocab_t     tokenizer_vocab.c     token text <-> id, id -> bytes
 *   lrd_bpe_t       tokenizer_bpe.c       the bytes of a piece -> ids
 *   lrd_splitter_t  tokenizer_split.c     a text -> pieces
 *   lrd_added_t     tokenizer_added.c     cuts added tokens out of a text
 *
 * tokenizer_load.c fills them from JSON; tokenizer_encode.c and tokenizer_batch.c run a text
 * through all of them.
 */
#ifndef LRD_DATA_TOKENIZER_PARTS_H
#define LRD_DATA_TOKENIZER_PARTS_H

#include "base/buf.h"
#include "base/hash.h"
#include "base/status.h"
#include "data/tokenizer.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- vocabulary ------------------------------------------------------------------------------ */

/* One token. Its text is what tokenizer.json says; its bytes are what it stands for: each character
 * of the text mapped back to a byte, or the text itself when a character is outside that map. */
typedef struct lrd_vocab_token {
    uint32_t text, text_bytes; /* in vocab->text */
    uint32_t bytes, n_bytes;   /* in vocab->bytes */
    int32_t id;
    bool special;
} lrd_vocab_token_t;

typedef struct lrd_vocab {
    lrd_vocab_token_t *token; /* those of the model, then added ones that the model does not have */
    uint32_t n_tokens, n_model;
    uint32_t capacity;
    lrd_buf_t text, bytes;
    uint32_t *slot; /* [slot_mask + 1]: hash of the text -> index of a token + 1; 0: free */
    uint32_t slot_mask;
    int32_t *by_id; /* [size]: index of the token; -1: no such id */
    int32_t size;   /* highest id + 1 */
} lrd_vocab_t;

void lrd_vocab_release(lrd_vocab_t *vocab);

/* Adds a token without looking whether its text is known: the caller has. LRD_ERR_NO_MEMORY. */
lrd_status_t lrd_vocab_add(lrd_vocab_t *vocab, const char *text, size_t bytes, int32_t id);

/* Fills by_id and size from the tokens. LRD_ERR_FORMAT: an id twice, or ids far beyond the number
 * of tokens. May be called again after more tokens were added. */
lrd_status_t lrd_vocab_index(lrd_vocab_t *vocab, const char *name);

/* Index of the token of this text, or -1. */
int64_t lrd_vocab_find(const lrd_vocab_t *vocab, const char *text, size_t bytes);

/* NULL: outside the vocabulary. */
const lrd_vocab_token_t *lrd_vocab_by_id(const lrd_vocab_t *vocab, int32_t id);

/* Writes the character that stands for a byte as UTF-8 into out[2] and returns its length. */
size_t lrd_byte_symbol(uint8_t byte, char out[2]);

/* ---- byte-level BPE -------------------------------------------------------------------------- */

/* A pair of neighbours that may be merged. Lower ranks first. */
typedef struct lrd_merge {
    uint64_t pair; /* left id << 32 | right id; UINT64_MAX: free slot */
    uint32_t rank; /* UINT32_MAX in a free slot */
} lrd_merge_t;

typedef struct lrd_bpe {
    lrd_merge_t *slot; /* [slot_mask + 1], open addressing */
    uint32_t slot_mask;
    int32_t *merged;      /* [n_ranks]: what the pair of this rank becomes */
    uint32_t n_ranks;     /* length of the list of merges */
    int32_t byte_id[256]; /* -1: no such symbol in the vocabulary */
    bool complete;        /* all 256 are there */
    int32_t unk_id;       /* stands for a byte without a symbol; -1: such a byte is dropped */
    bool fuse_unk;        /* one for a run of such bytes */
    bool ignore_merges;   /* a piece that is a token is that token */
} lrd_bpe_t;

void lrd_bpe_release(lrd_bpe_t *bpe);

/* Makes room for n_ranks merges, then adds them one by one; of equal pairs the last one counts. */
lrd_status_t lrd_bpe_reserve(lrd_bpe_t *bpe, uint32_t n_ranks);
void lrd_bpe_add(lrd_bpe_t *bpe, uint32_t rank, int32_t left, int32_t right, int32_t id);

/* Scratch memory of one thread. */
typedef struct lrd_bpe_symbol {
    int32_t id;
    int32_t at;          /* its first byte, from the start of the piece */
    uint32_t rank;       /* of the pair with its right neighbour; UINT32_MAX: that is no merge */
    int32_t left, right; /* neighbours' indices, -1: none */
} lrd_bpe_symbol_t;

typedef struct lrd_bpe_scratch {
    lrd_bpe_symbol_t *symbol; /* [capacity] */
    int32_t *first;           /* [2 * capacity] */
    uint64_t *heap;           /* [2 * capacity]: rank << 32 | index of a symbol, smallest on top */
    size_t n_heap;
    size_t capacity;
    lrd_buf_t text;
} lrd_bpe_scratch_t;

void lrd_bpe_scratch_release(lrd_bpe_scratch_t *scratch);

/* Appends the ids of one piece, n >= 1 bytes that begin at `begin` of the text, to tokens, which
 * has room for n more. LRD_ERR_NO_MEMORY. */
lrd_status_t lrd_bpe_encode(const lrd_tokenizer_t *tokenizer, lrd_bpe_scratch_t *scratch,
                            const char *piece, int32_t n, int32_t begin, lrd_tokens_t *tokens);

/* ---- pieces ---------------------------------------------------------------------------------- */

enum { LRD_SPLIT_MAX_STAGES = 8 };

typedef struct lrd_split_stage {
    void *regex;   /* Oniguruma's, owned */
    bool is_bloom; /* the pattern is BLOOM's, for which there is a faster way */
} lrd_split_stage_t;

/* Each stage splits the pieces that the one before it made. No stage: the text is one piece. */
typedef struct lrd_splitter {
    lrd_split_stage_t stage[LRD_SPLIT_MAX_STAGES];
    int n_stages;
    bool regex_only; /* never take the faster way: to compare them */
} lrd_splitter_t;

void lrd_splitter_release(lrd_splitter_t *splitter);

/* Adds a stage for a pattern in Oniguruma's syntax. `where` stands in messages. LRD_ERR_FORMAT: not
 * a valid pattern. LRD_ERR_UNSUPPORTED: too many stages, or a pattern of more than 4,096 bytes. */
lrd_status_t lrd_splitter_add(lrd_splitter_t *splitter, const char *pattern, size_t bytes,
                              const char *where);

/* Scratch memory of one thread. After a split, end[0..n) are the pieces' ends, the last one the
 * text's length; pieces are never empty. */
typedef struct lrd_pieces {
    int32_t *end;
    size_t n, capacity;
    int32_t *other; /* the ends of the stage before */
    size_t other_capacity;
    void *region; /* Oniguruma's */
} lrd_pieces_t;

lrd_status_t lrd_pieces_init(lrd_pieces_t *pieces);
void lrd_pieces_release(lrd_pieces_t *pieces);

/* text[0..bytes) is UTF-8, bytes >= 1. LRD_ERR_FORMAT: a regular expression gave up. */
lrd_status_t lrd_splitter_split(const lrd_splitter_t *splitter, const char *text, int32_t bytes,
                                lrd_pieces_t *pieces);

/* ---- added tokens ---------------------------------------------------------------------------- */

typedef struct lrd_added_token {
    int32_t id;
    bool single_word, lstrip, rstrip;
} lrd_added_token_t;

/* A node of a trie over the texts' bytes. */
typedef struct lrd_added_node {
    int32_t child, sibling; /* 0: none */
    int32_t token;          /* index of the added token that ends here; -1: none does */
    uint8_t byte;
} lrd_added_node_t;

typedef struct lrd_added_trie {
    lrd_added_node_t *node; /* node 0 is the root */
    int32_t n_nodes, capacity;
    int32_t root[256]; /* children of the root by byte; 0: none */
} lrd_added_trie_t;

/* Two passes: tokens that are not "normalized" are cut from the text, the others from the rest. */
enum { LRD_ADDED_PASSES = 2 };

typedef struct lrd_added {
    lrd_added_token_t *token;
    size_t n_tokens;
    lrd_added_trie_t trie[LRD_ADDED_PASSES];
} lrd_added_t;

void lrd_added_release(lrd_added_t *added);

/* Makes `text` (bytes >= 1) match in this pass as token `index`. LRD_ERR_NO_MEMORY. */
lrd_status_t lrd_added_insert(lrd_added_t *added, int pass, const char *text, size_t bytes,
                              int32_t index);

/* One part of a text. Start a pass over a text of 1 byte or more with {0}; lrd_added_next gives its
 * parts front to back, and false at the end. */
typedef struct lrd_added_part {
    int32_t begin, end; /* of the part */
    int32_t id;         /* of the added token; -1: text */
    /* private */
    int32_t search;                           /* where to look for the next match */
    int32_t cut;                              /* where the part before ended */
    int32_t match_begin, match_end, match_id; /* a match that waits for the text before it */
    int32_t white_begin, white_end;           /* a run of white space that was seen */
    bool waiting;
} lrd_added_part_t;

bool lrd_added_next(const lrd_added_t *added, int pass, const char *text, int32_t bytes,
                    lrd_added_part_t *part);

/* ---- the whole ------------------------------------------------------------------------------- */

struct lrd_tokenizer {
    lrd_vocab_t vocab;
    lrd_bpe_t bpe;
    lrd_splitter_t splitter;
    lrd_added_t added;
    char sha256[LRD_SHA256_HEX];
};

/* Reading the parts from JSON; `name` is the file. */
lrd_status_t lrd_splitter_read(lrd_splitter_t *splitter, const json_t *pre_tokenizer,
                               const char *name);
lrd_status_t lrd_added_read(lrd_tokenizer_t *tokenizer, const json_t *added_tokens,
                            const char *name);

/* LRD_ERR_NO_MEMORY. Makes room for n more tokens. */
lrd_status_t lrd_tokens_reserve(lrd_tokens_t *tokens, size_t n);

/* As lrd_encoder_encode; where the text is at fault, the message begins with `where`
 * ("text 17: " or ""). */
lrd_status_t lrd_encoder_encode_named(lrd_encoder_t *encoder, const char *text, size_t bytes,
                                      const char *where, lrd_tokens_t *tokens);

#endif /* LRD_DATA_TOKENIZER_PARTS_H */
