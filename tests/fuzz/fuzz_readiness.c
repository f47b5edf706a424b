/*
 * The agent's history of permissive ports, as a file and as what a proxy says. Properties: what is
 * read is written and read again as the same, and bytes that are refused change nothing; whatever a
 * proxy says, the bounds hold, and file and answer can be written.
 */
#include <postern/readiness.h>

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

static void must_round_trip(struct readiness *r)
{
    struct readiness *again = readiness_new();
    struct buf a = BUF_INIT(READINESS_FILE_MAX), b = BUF_INIT(READINESS_FILE_MAX);
    require(readiness_save(r, 0, &a) && readiness_load(again, buf_str(&a), NULL) == 0 &&
            readiness_save(again, 0, &b) && buf_len(&a) == buf_len(&b) &&
            memcmp(buf_head(&a), buf_head(&b), buf_len(&a)) == 0);
    buf_reset(&a);
    buf_reset(&b);
    readiness_free(again);
}

static void must_be_within(struct readiness *r)
{
    struct buf out = BUF_INIT(16 << 20);
    struct readiness_counts n;
    readiness_count(r, &n);
    require(n.ports <= READINESS_PORTS);
    require(readiness_write(r, 1, &out));
    for (size_t i = 0; i < buf_len(&out); i++) {
        require(buf_head(&out)[i] == '\n' ||
                (buf_head(&out)[i] >= 0x20 && buf_head(&out)[i] < 0x7f));
    }
    buf_reset(&out);
    must_round_trip(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct readiness *r = readiness_new();
    struct readiness_counts n;
    if (readiness_load(r, (struct str){(const char *)data, size}, NULL) == 0) {
        must_be_within(r);
    } else {
        readiness_count(r, &n);
        require(n.ports == 0);
    }
    Postern__V1__SubscribeRequest *m =
        postern__v1__subscribe_request__unpack(NULL, size, size > 0 ? data : (const uint8_t *)"");
    if (m != NULL && m->plaintext != NULL) {
        struct str id = STR_LIT("spiffe://example.org/a");
        (void)readiness_take(r, id, str_of(m->name), m->plaintext, INT64_C(1700000000));
        (void)readiness_take(r, id, str_of(m->name), m->plaintext, INT64_C(1700000001));
        must_be_within(r);
    }
    if (m != NULL) {
        postern__v1__subscribe_request__free_unpacked(m, NULL);
    }
    readiness_free(r);
    return 0;
}
