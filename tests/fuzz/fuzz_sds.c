/*
 * What SDS and reflection read of messages that nest: the metadata flag is found only where a
 * straight reader finds its bytes, whatever is asked of reflection gets an answer or is refused,
 * and an answer is a message. The first byte chooses.
 */
#include "../../identity/service/sds_priv.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool contains(struct str all, struct str part)
{
    return all.n >= part.n && memmem(all.p, all.n, part.p, part.n) != NULL;
}

static void check_flag(struct str message)
{
    struct str key = STR_LIT("disable_spiffe_cert_validation");
    if (service_sds_metadata_flag(message, key)) {
        POSTERN_ASSERT(contains(message, key));
    }
}

static void check_reflection(struct str message)
{
    struct buf out = BUF_INIT(1 << 20);
    if (service_reflect(message, &out)) {
        struct service_wire w = service_wire_of(buf_str(&out));
        unsigned fields = 0;
        while (service_wire_next(&w)) {
            fields++;
        }
        POSTERN_ASSERT(!w.bad && fields == 2); /* the request told back, and one answer */
    }
    buf_reset(&out);
}

static void check_request(struct str message)
{
    Sds__DiscoveryRequest *r =
        sds__discovery_request__unpack(NULL, message.n, (const uint8_t *)message.p);
    if (r != NULL) {
        (void)service_sds_takes_spiffe_validator(r->node);
        sds__discovery_request__free_unpacked(r, NULL);
    }
}

static void check_pem(struct str ders)
{
    size_t n = service_pem_size("CERTIFICATE", ders);
    char *out = malloc(n + 1);
    POSTERN_ASSERT(out != NULL && service_pem_put(out, "CERTIFICATE", ders) == out + n);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const checks[])(struct str message) = {check_flag, check_reflection,
                                                         check_request, check_pem};
    if (size > 0) {
        checks[data[0] % 4]((struct str){(const char *)data + 1, size - 1});
    }
    return 0;
}
