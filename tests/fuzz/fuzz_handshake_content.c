/*
 * What OpenSSL wants signed, taken for a CertificateVerify of TLS 1.3. Property: what is taken is
 * written again byte by byte, so that the process with the key signs exactly that and nothing else.
 */
#include <postern/away_key.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct away_handshake what;
    uint8_t again[AWAY_HANDSHAKE_MAX];
    if (away_handshake_parse(data, size, &what) &&
        (away_handshake_write(&what, again) != size || memcmp(again, data, size) != 0 ||
         data[0] != ' ' || data[63] != ' ')) {
        abort();
    }
    return 0;
}
