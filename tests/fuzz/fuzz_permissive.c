/*
 * Telling TLS from plaintext, and classes of it. Properties: byte by byte and whole give one
 * answer, and once given it stays, whatever follows; it is what a second reader says, written from
 * RFC 8446 5.1; what OpenSSL or a peer could begin a handshake with is never plaintext; a class is
 * one of the words, of a few bytes, and no TLS record has one but `other`.
 */
#include <postern/permissive.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

/* struct { ContentType type; ProtocolVersion legacy_record_version; ... }: each byte in turn. */
static enum permissive_first second_reader(const uint8_t *p, size_t n)
{
    static const uint8_t low[] = {20, 3, 0}, high[] = {23, 3, 4};
    for (size_t i = 0; i < sizeof(low); i++) {
        if (i == n) {
            return PERMISSIVE_MORE;
        }
        if (p[i] < low[i] || p[i] > high[i]) {
            return PERMISSIVE_PLAIN;
        }
    }
    return PERMISSIVE_TLS;
}

static void must_be_stable(const uint8_t *p, size_t n)
{
    enum permissive_first before = PERMISSIVE_MORE;
    for (size_t i = 0; i <= n && i < 8; i++) {
        /* In memory of its own, so that a byte beyond is seen by the sanitizer. */
        uint8_t *part = (uint8_t *)malloc(i > 0 ? i : 1);
        require(part != NULL);
        memcpy(part, p, i);
        enum permissive_first now = permissive_first(part, i);
        require(now == second_reader(part, i));
        require(before == PERMISSIVE_MORE || now == before);
        before = now;
        free(part);
    }
    require(n < 3 || permissive_first(p, n) == permissive_first(p, 3));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = (uint8_t *)malloc(size > 0 ? size : 1);
    require(copy != NULL);
    if (size > 0) {
        memcpy(copy, data, size);
    }
    must_be_stable(copy, size);
    size_t n = size < PERMISSIVE_BYTES ? size : PERMISSIVE_BYTES;
    enum permissive_class c = permissive_class(copy, n);
    require((unsigned)c < PERMISSIVE_CLASS_COUNT);
    size_t len = strlen(permissive_class_name(c));
    require(len > 0 && len <= 15);
    require((c == PERMISSIVE_SILENCE) == (n == 0));
    require(permissive_first(copy, size) != PERMISSIVE_TLS || c == PERMISSIVE_OTHER ||
            c == PERMISSIVE_MONGODB);
    /* More of the same does not change a class that was told. */
    if (c != PERMISSIVE_OTHER && c != PERMISSIVE_SILENCE) {
        uint8_t longer[2 * PERMISSIVE_BYTES];
        memcpy(longer, copy, n);
        memset(longer + n, 0x7f, sizeof(longer) - n);
        require(permissive_class(longer, n + 1) == c);
    }
    free(copy);
    return 0;
}
