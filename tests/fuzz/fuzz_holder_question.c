/*
 * What a data plane may ask of its key holder. Property: whatever comes, one of a listed kind comes
 * out or nothing does, and what is signed then begins as a CertificateVerify does.
 */
#include "holder_priv.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
    if (!ok) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct holder_question q;
    uint8_t content[AWAY_HANDSHAKE_MAX];
    require(!holder_question_ok(data, size, true, &q));
    if (!holder_question_ok(data, size, false, &q)) {
        return 0;
    }
    require(size == sizeof(q) && q.id != 0 && q.type >= HOLDER_MAKE && q.type <= HOLDER_REPORT);
    if (q.type == HOLDER_SIGN) {
        struct away_handshake what = {.role = (enum away_role)q.role,
                                      .transcript_len = q.transcript_len};
        struct away_handshake again;
        memcpy(what.transcript, q.transcript, q.transcript_len);
        require(away_handshake_parse(content, away_handshake_write(&what, content), &again));
        require(again.role == what.role);
    } else {
        require(q.transcript_len == 0 && q.role == 0);
    }
    return 0;
}
