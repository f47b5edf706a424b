/* The content of a CertificateVerify (RFC 8446, 4.4.3): 64 spaces, which no message of an older
 * protocol begins with, whose it is, a zero, and the transcript's hash. */
#include "keyprov_priv.h"

#include <string.h>

enum { SPACES = 64, CONTEXT_LEN = 33, HEAD = SPACES + CONTEXT_LEN + 1 };

/* With the zero that ends them. */
static const char *const CONTEXTS[] = {[AWAY_SERVER] = "TLS 1.3, server CertificateVerify",
                                       [AWAY_CLIENT] = "TLS 1.3, client CertificateVerify"};

_Static_assert(HEAD + AWAY_TRANSCRIPT_MAX == AWAY_HANDSHAKE_MAX, "the content has another size");

static void write_head(enum away_role role, uint8_t ret[HEAD])
{
    memset(ret, ' ', SPACES);
    memcpy(ret + SPACES, CONTEXTS[role], CONTEXT_LEN + 1);
}

size_t away_handshake_write(const struct away_handshake *what, uint8_t ret[AWAY_HANDSHAKE_MAX])
{
    POSTERN_ASSERT(what->transcript_len == 32 || what->transcript_len == 48);
    write_head(what->role, ret);
    memcpy(ret + HEAD, what->transcript, what->transcript_len);
    return HEAD + what->transcript_len;
}

bool away_handshake_parse(const uint8_t *bytes, size_t len, struct away_handshake *ret)
{
    if (len != HEAD + 32 && len != HEAD + 48) {
        return false;
    }
    for (enum away_role role = AWAY_SERVER; role <= AWAY_CLIENT; role++) {
        uint8_t head[HEAD];
        write_head(role, head);
        if (memcmp(bytes, head, HEAD) == 0) {
            *ret = (struct away_handshake){.role = role, .transcript_len = len - HEAD};
            memcpy(ret->transcript, bytes + HEAD, len - HEAD);
            return true;
        }
    }
    return false;
}
