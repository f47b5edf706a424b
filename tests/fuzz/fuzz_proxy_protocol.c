/*
 * proxy_protocol: in pieces is whole; what was read and is written again reads the same; a wrong
 * checksum is never taken.
 */
#include <postern/proxy_protocol.h>

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

static bool same_addresses(const struct proxy_protocol *a, const struct proxy_protocol *b)
{
    if (a->family != b->family) {
        return false;
    }
    if (a->family == PROXY_PROTOCOL_UNIX) {
        return str_eq(a->source_path, b->source_path) &&
               str_eq(a->destination_path, b->destination_path);
    }
    return a->family == PROXY_PROTOCOL_UNSPEC || (net_addr_equal(&a->source, &b->source) &&
                                                  net_addr_equal(&a->destination, &b->destination));
}

static bool same_told(const struct proxy_protocol *a, const struct proxy_protocol *b)
{
    return str_eq(a->alpn, b->alpn) && str_eq(a->authority, b->authority) &&
           str_eq(a->unique_id, b->unique_id) && str_eq(a->netns, b->netns) &&
           str_eq(a->spiffe_id, b->spiffe_id) && a->has_tls == b->has_tls &&
           a->tls.used == b->tls.used && a->tls.cert_conn == b->tls.cert_conn &&
           a->tls.cert_sess == b->tls.cert_sess && a->tls.verify == b->tls.verify &&
           str_eq(a->tls.version, b->tls.version) && str_eq(a->tls.cipher, b->tls.cipher) &&
           str_eq(a->tls.cn, b->tls.cn) && str_eq(a->tls.cert, b->tls.cert) &&
           a->has_crc == b->has_crc;
}

/* What is sent on is what came, and comes out the same at the next one. */
static void pass_on(const struct proxy_protocol *h)
{
    static const uint16_t types[] = {0x05, 0xea, 0xee};
    struct buf out = BUF_INIT(2 * PROXY_PROTOCOL_V2_MAX);
    struct buf picked = BUF_INIT(PROXY_PROTOCOL_V2_MAX);
    struct buf again = BUF_INIT(PROXY_PROTOCOL_V2_MAX);
    struct proxy_protocol next = {
        .family = h->family, .source = h->source, .destination = h->destination, .has_crc = true};
    struct proxy_protocol back = {.spiffe_id_tlv = PROXY_PROTOCOL_ID_TLV};
    size_t used = 0;
    MUST(proxy_protocol_pick(h->tlvs, types, 3, &picked));
    next.tlvs = buf_str(&picked);
    if (h->family == PROXY_PROTOCOL_INET && proxy_protocol_write_v2(&next, &out)) {
        MUST(proxy_protocol_read(buf_head(&out), buf_len(&out), &back, &used) == PROXY_PROTOCOL_OK);
        MUST(back.spiffe_id.n == 0 && !back.has_tls);
        MUST(proxy_protocol_pick(back.tlvs, types, 3, &again));
        MUST(str_eq(buf_str(&again), buf_str(&picked)));
    }
    buf_reset(&out);
    buf_reset(&picked);
    buf_reset(&again);
}

static void round_trip(const struct proxy_protocol *h)
{
    struct buf out = BUF_INIT(2 * PROXY_PROTOCOL_V2_MAX);
    struct proxy_protocol again = {.spiffe_id_tlv = PROXY_PROTOCOL_ID_TLV};
    size_t used = 0;
    MUST(proxy_protocol_write_v2(h, &out));
    MUST(proxy_protocol_read(buf_head(&out), buf_len(&out), &again, &used) == PROXY_PROTOCOL_OK);
    MUST(used == buf_len(&out) && again.local == h->local);
    if (!h->local) {
        MUST(same_addresses(h, &again) && same_told(h, &again));
    }
    if (h->has_crc) {
        out.data[out.start + out.len - 1] ^= 1;
        MUST(proxy_protocol_read(buf_head(&out), buf_len(&out), &again, &used) ==
             PROXY_PROTOCOL_BAD);
    }
    buf_consume(&out, buf_len(&out));
    MUST(proxy_protocol_write_v1(h, &out) && buf_len(&out) <= PROXY_PROTOCOL_V1_MAX);
    struct proxy_protocol first = {.spiffe_id_tlv = 0};
    MUST(proxy_protocol_read(buf_head(&out), buf_len(&out), &first, &used) == PROXY_PROTOCOL_OK);
    MUST(h->family != PROXY_PROTOCOL_INET || same_addresses(h, &first));
    buf_reset(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_protocol whole = {.spiffe_id_tlv = PROXY_PROTOCOL_ID_TLV};
    struct proxy_protocol part = whole;
    size_t used = 0, used_part = 0;
    enum proxy_protocol_result r = proxy_protocol_read(data, size, &whole, &used);
    enum proxy_protocol_result p = PROXY_PROTOCOL_MORE;
    for (size_t n = 0; p == PROXY_PROTOCOL_MORE && n <= size; n++) {
        p = proxy_protocol_read(data, n, &part, &used_part);
    }
    MUST(p == r);
    if (r == PROXY_PROTOCOL_OK) {
        MUST(used == used_part && used <= size && whole.local == part.local);
        MUST(same_addresses(&whole, &part) && same_told(&whole, &part));
        pass_on(&whole);
        whole.tlvs = STR_NONE; /* written by what they say */
        round_trip(&whole);
    }
    /* A reader that takes what is bound, and no more, comes to the same end. */
    for (size_t n = 1; n <= size; n += 1 + n / 8) {
        size_t bound = proxy_protocol_bound(data, n);
        enum proxy_protocol_result at = proxy_protocol_read(data, n, &part, &used_part);
        MUST(bound >= 1 && bound <= n);
        MUST(at != PROXY_PROTOCOL_OK || bound == used_part);
        MUST(at != PROXY_PROTOCOL_MORE || bound == n);
    }
    return 0;
}
