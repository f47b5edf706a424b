/*
 * The messages that come from outside: what can be unpacked packs to the size that was announced,
 * and unpacks to the same once more; or not at all, since protobuf-c takes an unknown field of
 * number 0 and then refuses what it makes of it. The first byte chooses the message.
 */
#include <postern/err.h>
#include <postern/proto.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCMessageDescriptor *const MESSAGES[] = {
    &postern__v1__sign_x509_svidrequest__descriptor,
    &postern__v1__sign_x509_svidresponse__descriptor,
    &workload__x509_svidrequest__descriptor,
    &workload__x509_svidresponse__descriptor,
    &workload__x509_bundles_response__descriptor,
    &workload__jwtsvidrequest__descriptor,
    &workload__jwtsvidresponse__descriptor,
    &workload__jwtbundles_response__descriptor,
    &workload__validate_jwtsvidrequest__descriptor,
    &workload__validate_jwtsvidresponse__descriptor,
    &postern__v1__subscribe_request__descriptor,
    &postern__v1__snapshot__descriptor,
};

static uint8_t *pack(const ProtobufCMessage *m, size_t *ret_n)
{
    size_t n = protobuf_c_message_get_packed_size(m);
    uint8_t *out = malloc(n + 1);
    POSTERN_ASSERT(out != NULL);
    POSTERN_ASSERT(protobuf_c_message_pack(m, out) == n);
    *ret_n = n;
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const ProtobufCMessageDescriptor *d =
        MESSAGES[data[0] % (sizeof(MESSAGES) / sizeof(MESSAGES[0]))];
    ProtobufCMessage *m = protobuf_c_message_unpack(d, NULL, size - 1, data + 1);
    if (m == NULL) {
        return 0;
    }
    size_t n = 0;
    size_t n_again = 0;
    uint8_t *packed = pack(m, &n);
    ProtobufCMessage *again = protobuf_c_message_unpack(d, NULL, n, packed);
    if (again != NULL) {
        uint8_t *packed_again = pack(again, &n_again);
        POSTERN_ASSERT(n == n_again && memcmp(packed, packed_again, n) == 0);
        free(packed_again);
        protobuf_c_message_free_unpacked(again, NULL);
    }
    free(packed);
    protobuf_c_message_free_unpacked(m, NULL);
    return 0;
}
