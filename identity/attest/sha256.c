/* sha256: FIPS 180-4. The attestor holds CAP_SYS_PTRACE and links no library, so the few lines are
 * our own; tests hold them against OpenSSL's. Only public bytes go through here. */
#include <postern/attest.h>

#include <string.h>

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, int n)
{
    return (x >> n) | (x << (32 - n));
}

static uint32_t load(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* One round; the caller names the eight words in another order each time, so that none is moved. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                           \
    do {                                                                                           \
        uint32_t t1 = (h) + (rotate((e), 6) ^ rotate((e), 11) ^ rotate((e), 25)) +                 \
                      (((e) & (f)) ^ (~(e) & (g))) + K[i] + w[i];                                  \
        uint32_t t2 = (rotate((a), 2) ^ rotate((a), 13) ^ rotate((a), 22)) +                       \
                      (((a) & (b)) ^ ((a) & (c)) ^ ((b) & (c)));                                   \
        (d) += t1;                                                                                 \
        (h) = t1 + t2;                                                                             \
    } while (0)

static void take_block(uint32_t state[8], const uint8_t *block)
{
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    uint32_t w[64];

    for (size_t i = 0; i < 16; i++) {
        w[i] = load(block + 4 * i);
    }
    for (size_t i = 16; i < 64; i++) {
        uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ (w[i - 15] >> 3);
        uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ (w[i - 2] >> 10);

        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    for (size_t i = 0; i < 64; i += 8) {
        ROUND(a, b, c, d, e, f, g, h, i);
        ROUND(h, a, b, c, d, e, f, g, i + 1);
        ROUND(g, h, a, b, c, d, e, f, i + 2);
        ROUND(f, g, h, a, b, c, d, e, i + 3);
        ROUND(e, f, g, h, a, b, c, d, i + 4);
        ROUND(d, e, f, g, h, a, b, c, i + 5);
        ROUND(c, d, e, f, g, h, a, b, i + 6);
        ROUND(b, c, d, e, f, g, h, a, i + 7);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

void attest_sha256_init(struct attest_sha256 *s)
{
    *s = (struct attest_sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                          0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void attest_sha256_add(struct attest_sha256 *s, const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t held = (size_t)(s->n % sizeof(s->block));

    s->n += len;
    while (len > 0) {
        size_t n = sizeof(s->block) - held;

        if (held == 0 && len >= sizeof(s->block)) {
            take_block(s->state, p);
            p += sizeof(s->block);
            len -= sizeof(s->block);
            continue;
        }
        n = n < len ? n : len;
        memcpy(s->block + held, p, n);
        p += n;
        len -= n;
        held += n;
        if (held == sizeof(s->block)) {
            take_block(s->state, s->block);
            held = 0;
        }
    }
}

void attest_sha256_end(struct attest_sha256 *s, uint8_t ret[AGENT_SHA256_SIZE])
{
    static const uint8_t pad[64] = {0x80};
    uint64_t bits = s->n * 8;
    size_t held = (size_t)(s->n % sizeof(s->block));
    uint8_t length[8];

    for (size_t i = 0; i < 8; i++) {
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    attest_sha256_add(s, pad, held < 56 ? 56 - held : 120 - held);
    attest_sha256_add(s, length, sizeof(length));
    for (size_t i = 0; i < AGENT_SHA256_SIZE; i++) {
        ret[i] = (uint8_t)(s->state[i / 4] >> (24 - 8 * (i % 4)));
    }
}
