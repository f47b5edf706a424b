/*
 * client_hello: in pieces is whole; cut into other records it says the same; what is found stands
 * in the message; a name has no byte that would need escaping.
 */
#include <postern/client_hello.h>

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static bool same(const struct client_hello *a, const struct client_hello *b)
{
    return a->server_name_len == b->server_name_len && a->alpn_len == b->alpn_len &&
           memcmp(a->server_name, b->server_name, a->server_name_len) == 0 &&
           memcmp(a->alpn, b->alpn, a->alpn_len) == 0 && a->encrypted == b->encrypted;
}

static enum client_hello_result read_whole(const uint8_t *data, size_t size,
                                           struct client_hello *ret)
{
    struct client_hello_scan scan = {.at = 0};
    return client_hello_read(&scan, data, size, ret);
}

/* The same message in records of one byte each, as far as that fits the bound. */
static void recut(const uint8_t *data, size_t size, const struct client_hello *found)
{
    static uint8_t out[CLIENT_HELLO_WIRE_MAX + 6];
    size_t n = 0;
    size_t at = 0;
    while (size - at >= 5) {
        size_t record = (size_t)data[at + 3] << 8 | data[at + 4];
        if (size - at - 5 < record) {
            break;
        }
        for (size_t i = 0; i < record; i++) {
            if (n + 6 > sizeof(out)) {
                return;
            }
            const uint8_t one[6] = {22, 3, 1, 0, 1, data[at + 5 + i]};
            memcpy(out + n, one, sizeof(one));
            n += sizeof(one);
        }
        at += 5 + record;
    }
    struct client_hello again;
    enum client_hello_result r = read_whole(out, n, &again);
    MUST(r == CLIENT_HELLO_FOUND || (r == CLIENT_HELLO_TOO_LONG && n >= CLIENT_HELLO_WIRE_MAX) ||
         /* what stands behind the message in its last whole record was not looked at */
         n == 0);
    MUST(r != CLIENT_HELLO_FOUND || same(&again, found));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct client_hello whole = {.server_name_len = 0};
    struct client_hello part = {.server_name_len = 0};
    struct client_hello_scan scan = {.at = 0};
    enum client_hello_result r = read_whole(data, size, &whole);
    enum client_hello_result p = CLIENT_HELLO_MORE;
    for (size_t n = 0; p == CLIENT_HELLO_MORE && n <= size; n++) {
        p = client_hello_read(&scan, data, n, &part);
    }
    MUST(p == r && client_hello_result_name(r) != NULL);
    if (r != CLIENT_HELLO_FOUND) {
        return 0;
    }
    MUST(same(&whole, &part));
    MUST(whole.server_name_len <= CLIENT_HELLO_NAME_MAX &&
         whole.server_name[whole.server_name_len] == '\0');
    for (size_t i = 0; i < whole.server_name_len; i++) {
        MUST(whole.server_name[i] > ' ' && whole.server_name[i] < 127);
    }
    for (size_t i = 0; i < whole.alpn_len; i += 1U + whole.alpn[i]) {
        MUST(whole.alpn[i] > 0 && i + 1U + whole.alpn[i] <= whole.alpn_len);
    }
    recut(data, size, &whole);
    return 0;
}
