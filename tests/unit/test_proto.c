/* The messages against bytes written by hand after the specification. */
#include <postern/proto.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_garbage(void **state)
{
    (void)state;
    static const uint8_t cut[] = {0x0a, 0x05, 'a'};
    assert_null(workload__jwtsvidrequest__unpack(NULL, sizeof(cut), cut));
    static const uint8_t wrong_type[] = {0x08, 0x01}; /* field 1 as a number: kept as unknown */
    Workload__JWTSVIDRequest *r =
        workload__jwtsvidrequest__unpack(NULL, sizeof(wrong_type), wrong_type);
    if (r != NULL) {
        assert_int_equal(r->n_audience, 0);
        workload__jwtsvidrequest__free_unpacked(r, NULL);
    }
}

static void test_x509_response(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {
        0x0a, 0x11,                                    /* svids */
        0x0a, 0x02, 'i',  'd',  0x12, 0x01, 'c',       /* spiffe_id, x509_svid */
        0x1a, 0x01, 'k',  0x22, 0x01, 'b',             /* x509_svid_key, bundle */
        0x2a, 0x02, 'h',  'i',                         /* hint */
        0x12, 0x01, 'r',                               /* crl */
        0x1a, 0x06, 0x0a, 0x01, 't',  0x12, 0x01, 'B', /* federated_bundles {t: B} */
    };
    Workload__X509SVID svid;
    workload__x509_svid__init(&svid);
    svid.spiffe_id = (char[]){"id"};
    svid.x509_svid = (ProtobufCBinaryData){1, (uint8_t[]){'c'}};
    svid.x509_svid_key = (ProtobufCBinaryData){1, (uint8_t[]){'k'}};
    svid.bundle = (ProtobufCBinaryData){1, (uint8_t[]){'b'}};
    svid.hint = (char[]){"hi"};
    Workload__X509SVIDResponse__FederatedBundlesEntry entry;
    workload__x509_svidresponse__federated_bundles_entry__init(&entry);
    entry.key = (char[]){"t"};
    entry.value = (ProtobufCBinaryData){1, (uint8_t[]){'B'}};
    Workload__X509SVIDResponse r;
    workload__x509_svidresponse__init(&r);
    r.n_svids = 1;
    r.svids = (Workload__X509SVID *[]){&svid};
    r.n_crl = 1;
    r.crl = (ProtobufCBinaryData[]){{1, (uint8_t[]){'r'}}};
    r.n_federated_bundles = 1;
    r.federated_bundles = (Workload__X509SVIDResponse__FederatedBundlesEntry *[]){&entry};
    uint8_t out[64];
    assert_int_equal(workload__x509_svidresponse__get_packed_size(&r), sizeof(bytes));
    assert_int_equal(workload__x509_svidresponse__pack(&r, out), sizeof(bytes));
    assert_memory_equal(out, bytes, sizeof(bytes));
}

static void test_sign_request(void **state)
{
    (void)state;
    static const uint8_t bytes[] = {0x0a, 0x03, 'c', 's', 'r', 0x12, 0x02, 'i', 'd'};
    Postern__V1__SignX509SVIDRequest *r =
        postern__v1__sign_x509_svidrequest__unpack(NULL, sizeof(bytes), bytes);
    assert_non_null(r);
    assert_int_equal(r->csr.len, 3);
    assert_string_equal(r->spiffe_id, "id");
    postern__v1__sign_x509_svidrequest__free_unpacked(r, NULL);
    Postern__V1__SignX509SVIDResponse s;
    postern__v1__sign_x509_svidresponse__init(&s);
    s.not_after = 300;
    uint8_t out[8];
    assert_int_equal(postern__v1__sign_x509_svidresponse__pack(&s, out), 3);
    assert_memory_equal(out, ((uint8_t[]){0x20, 0xac, 0x02}), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_x509_response),
        cmocka_unit_test(test_sign_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
