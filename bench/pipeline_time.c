/* How busy a pipeline is, by simulating its schedule with given times, beside the formula
 * m / (m + (p - 1) / v). Four cases: all runs alike; passes of random times, up to a quarter longer
 * or shorter; a head on the last stage that costs as much as a run; a hop of a tenth of a pass. */
#include "comm/pipe_schedule.h"

#include <stdint.h>
#include <stdio.h>

enum { MOST_RUNS = 64 * 4, N_CASES = 4 };

/* A repeatable number in [0, 1). */
static double next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) * 0x1p-53;
}

static void fill(int kind, lrd_pipe_shape_t shape, double *forward, double *backward)
{
    const int n = shape.n_stages * shape.n_chunks;
    uint64_t state = 1;
    for (int k = 0; k < n; k++) {
        const double factor = kind == 1 ? 0.75 + next_random(&state) / 2 : 1;
        forward[k] = backward[k] = factor / shape.n_chunks;
    }
    if (kind == 2)
        forward[n - 1] += 2.0 / shape.n_chunks;
}

int main(void)
{
    static double forward[MOST_RUNS], backward[MOST_RUNS];
    const char *before = "";
    printf("{\"utilisation\": [");
    for (int p = 2; p <= 64; p *= 2) {
        for (int v = 1; v <= 4; v *= 2) {
            for (int rounds = 1; rounds <= 16; rounds *= 4) {
                const lrd_pipe_shape_t shape = {p, v, (int64_t)rounds * p, 0};
                const double m = (double)shape.n_micro_batches;
                double seconds, used[N_CASES];
                for (int kind = 0; kind < N_CASES; kind++) {
                    fill(kind, shape, forward, backward);
                    const lrd_pipe_cost_t cost = {forward, backward, kind == 3 ? 0.1 / v : 0, NULL};
                    if (lrd_pipe_predict(shape, &cost, &seconds, &used[kind]) != LRD_OK)
                        return 1;
                }
                printf(
                    "%s\n {\"p\": %d, \"v\": %d, \"m\": %.0f, \"formula\": %.4f, \"equal\": %.4f, "
                    "\"random\": %.4f, \"head\": %.4f, \"hop\": %.4f}",
                    before, p, v, m, m / (m + (p - 1.0) / v), used[0], used[1], used[2], used[3]);
                before = ",";
            }
        }
    }
    printf("\n]}\n");
    return 0;
}
