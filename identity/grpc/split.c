#include <postern/grpc.h>

#include <postern/mem.h>
#include <stdlib.h>

/* Memory grows with the bytes that have really come, not with the length that was announced. */
static bool grow(struct grpc_splitter *s, size_t want, size_t announced)
{
    if (want <= s->cap) {
        return true;
    }
    size_t cap = s->cap < 512 ? 512 : s->cap;
    while (cap < want) {
        cap *= 2;
    }
    if (cap > announced) {
        cap = announced;
    }
    uint8_t *data = malloc(cap);
    if (data == NULL) {
        return false;
    }
    if (s->data != NULL) {
        memcpy(data, s->data, s->n_data);
        mem_wipe(s->data, s->cap);
        free(s->data);
    }
    s->data = data;
    s->cap = cap;
    return true;
}

static size_t announced_length(const struct grpc_splitter *s)
{
    return (size_t)s->head[1] << 24 | (size_t)s->head[2] << 16 | (size_t)s->head[3] << 8 |
           s->head[4];
}

enum grpc_split grpc_splitter_feed(struct grpc_splitter *s, const uint8_t *p, size_t n,
                                   size_t *ret_taken, struct str *ret_message)
{
    size_t taken = 0;
    if (s->n_head == sizeof(s->head) && s->n_data == announced_length(s)) {
        s->n_head = 0; /* the message given last time has been used */
        s->n_data = 0;
    }
    while (s->n_head < sizeof(s->head) && taken < n) {
        s->head[s->n_head++] = p[taken++];
    }
    if (s->n_head < sizeof(s->head)) {
        *ret_taken = taken;
        return GRPC_SPLIT_MORE;
    }
    if (s->head[0] != 0) {
        return GRPC_SPLIT_COMPRESSED;
    }
    size_t want = announced_length(s);
    if (want > s->max_bytes) {
        return GRPC_SPLIT_TOO_LARGE;
    }
    size_t part = n - taken;
    if (part > want - s->n_data) {
        part = want - s->n_data;
    }
    if (part > 0) {
        if (!grow(s, s->n_data + part, want)) {
            return GRPC_SPLIT_NO_MEMORY;
        }
        memcpy(s->data + s->n_data, p + taken, part);
        s->n_data += part;
        taken += part;
    }
    *ret_taken = taken;
    if (s->n_data < want) {
        return GRPC_SPLIT_MORE;
    }
    *ret_message = (struct str){want > 0 ? (const char *)s->data : NULL, want};
    return GRPC_SPLIT_MESSAGE;
}

bool grpc_splitter_at_end(const struct grpc_splitter *s)
{
    return s->n_head == 0 ||
           (s->n_head == sizeof(s->head) && s->head[0] == 0 && s->n_data == announced_length(s));
}

size_t grpc_splitter_held(const struct grpc_splitter *s)
{
    return s->cap;
}

void grpc_splitter_reset(struct grpc_splitter *s)
{
    if (s->data != NULL) {
        mem_wipe(s->data, s->cap);
        free(s->data);
    }
    *s = (struct grpc_splitter){.max_bytes = s->max_bytes};
}
