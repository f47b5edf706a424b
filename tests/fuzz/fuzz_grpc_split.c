/* The splitter gives the same messages and the same end whether it is fed whole or byte by byte. */
#include <postern/err.h>
#include <postern/grpc.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_BYTES = 3000, MAX_MESSAGES = 4096 };

struct result {
    size_t n_messages, n_bytes;
    uint64_t sum;
    enum grpc_split end;
    bool at_end;
};

static struct result split(const uint8_t *p, size_t n, size_t step)
{
    struct grpc_splitter s = {.max_bytes = MAX_BYTES};
    struct result r = {.end = GRPC_SPLIT_MORE};
    while (n > 0 && r.end == GRPC_SPLIT_MORE) {
        size_t part = n < step ? n : step;
        while (part > 0) {
            size_t taken = 0;
            struct str m = STR_NONE;
            enum grpc_split out = grpc_splitter_feed(&s, p, part, &taken, &m);
            POSTERN_ASSERT(taken <= part);
            POSTERN_ASSERT(grpc_splitter_held(&s) <= MAX_BYTES);
            if (out == GRPC_SPLIT_MESSAGE) {
                r.n_messages++;
                r.n_bytes += m.n;
                for (size_t i = 0; i < m.n; i++) {
                    r.sum = r.sum * 31 + (uint8_t)m.p[i];
                }
            } else if (out != GRPC_SPLIT_MORE) {
                r.end = out;
                break;
            }
            p += taken;
            n -= taken;
            part -= taken;
        }
    }
    r.at_end = r.end == GRPC_SPLIT_MORE && grpc_splitter_at_end(&s);
    grpc_splitter_reset(&s);
    return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct result whole = split(data, size, SIZE_MAX);
    struct result bytes = split(data, size, 1);
    POSTERN_ASSERT(whole.n_messages == bytes.n_messages && whole.n_bytes == bytes.n_bytes);
    POSTERN_ASSERT(whole.sum == bytes.sum && whole.end == bytes.end);
    POSTERN_ASSERT(whole.at_end == bytes.at_end);
    return 0;
}
