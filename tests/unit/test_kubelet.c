/* The kubelet's list of pods and its HTTP answers: refusals first, then what a real kubelet said.
 */
#include <postern/kubelet.h>

#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define ID(c) c c c c c c c c c c c c c c c c /* 16 times 4 digits */
#define UID_A "8a29688e-514a-4962-b00b-693a9768948f"
#define UID_STATIC "0123456789abcdef0123456789abcdef"

/* --- lists ------------------------------------------------------------------------------------ */
static void test_lists_refused(void **state)
{
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"", "no JSON"},
        {"{", "no JSON"},
        {"Unauthorized", "no JSON"},
        {"[]", "no list of pods"},
        {"{}", "no list of pods"},
        {"{\"kind\":\"PodList\",\"apiVersion\":\"v1\"}", "no list of pods"},
        {"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":{}}", "no list of pods"},
        {"{\"kind\":\"PodList\",\"apiVersion\":\"v2\",\"items\":[]}", "no list of pods"},
        {"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"items\":[]}", "no list of pods"},
        {"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":[]} x", "no JSON"},
        {"{\"kind\":\"PodList\",\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":[]}",
         "no JSON"},
        {"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":[\"\\u0000\"]}", "no JSON"},
        {"{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":[\"\xff\"]}", "no JSON"},
    };
    struct kubelet_pods *pods = NULL;
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct err err = ERR_INIT;

        assert_int_equal(kubelet_pods_parse(cases[i].json, strlen(cases[i].json), &pods, &err), -1);
        assert_null(pods);
        if (strstr(err.what, cases[i].says) == NULL) {
            fail_msg("%s: '%s' does not say \"%s\"", cases[i].json, err.what, cases[i].says);
        }
    }
}

static void test_bounds(void **state)
{
    struct kubelet_pods *pods = NULL;
    struct err err = ERR_INIT;
    struct buf deep = BUF_INIT(1 << 20);
    (void)state;

    for (int i = 0; i < 100000; i++) {
        assert_true(buf_append(&deep, "[", 1));
    }
    assert_int_equal(kubelet_pods_parse((const char *)buf_head(&deep), buf_len(&deep), &pods, &err),
                     -1);
    assert_int_equal(err.code, ERR_LIMIT);
    buf_reset(&deep);
    /* Brackets in a text are no nesting. */
    assert_true(buf_append_str(&deep, STR_LIT("{\"kind\":\"PodList\",\"x\":\"\\\"")));
    for (int i = 0; i < 1000; i++) {
        assert_true(buf_append(&deep, "[", 1));
    }
    assert_true(buf_append_str(&deep, STR_LIT("\",\"apiVersion\":\"v1\",\"items\":null}")));
    assert_int_equal(kubelet_pods_parse((const char *)buf_head(&deep), buf_len(&deep), &pods, &err),
                     0);
    assert_int_equal(pods->n, 0);
    kubelet_pods_free(pods);
    buf_reset(&deep);

    err = (struct err)ERR_INIT;
    pods = NULL;
    char *huge = mem_must_calloc(KUBELET_BODY_MAX + 1, 1);
    assert_int_equal(kubelet_pods_parse(huge, KUBELET_BODY_MAX + 1, &pods, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    free(huge);
}

/* --- pods that are left out, while others stay ------------------------------------------------ */
static struct kubelet_pods *parse_items(const char *items)
{
    char *json =
        mem_must_printf("{\"kind\":\"PodList\",\"apiVersion\":\"v1\",\"items\":[%s]}", items);
    struct kubelet_pods *pods = NULL;
    struct err err = ERR_INIT;

    if (kubelet_pods_parse(json, strlen(json), &pods, &err) == -1) {
        fail_msg("%s", err.what);
    }
    free(json);
    return pods;
}

#define POD(metadata, rest) "{\"metadata\":{" metadata "}" rest "}"
#define META(uid) "\"uid\":\"" uid "\",\"namespace\":\"shop\",\"name\":\"web\""
#define GOOD POD(META(UID_STATIC), "")

static void test_pods_left_out(void **state)
{
    static const char *const bad[] = {
        "1",
        "null",
        "{}",
        POD("\"namespace\":\"shop\",\"name\":\"web\"", ""),
        POD(META("my-pod"), ""),
        POD(META("8A29688E-514A-4962-B00B-693A9768948F"), ""),
        POD(META("8a29688e-514a-4962-b00b-693a9768948f0"), ""),
        POD(META("8a29688e_514a_4962_b00b_693a9768948f"), ""),
        POD(META("../29688e-514a-4962-b00b-693a9768948"), ""),
        POD("\"uid\":\"" UID_A "\",\"name\":\"web\"", ""),
        POD("\"uid\":\"" UID_A "\",\"namespace\":\"a/b\",\"name\":\"web\"", ""),
        POD("\"uid\":\"" UID_A "\",\"namespace\":\"shop\",\"name\":\"Web\"", ""),
        POD("\"uid\":\"" UID_A "\",\"namespace\":\"shop\",\"name\":\".web\"", ""),
        POD("\"uid\":\"" UID_A "\",\"namespace\":\"shop\",\"name\":\"web-\"", ""),
        POD("\"uid\":\"" UID_A "\",\"namespace\":\"shop\",\"name\":\"a..b\"", ""),
        POD(META(UID_A), ",\"spec\":{\"serviceAccountName\":\"a\\nb\"}"),
        POD(META(UID_A) ",\"labels\":{\"a\":1}", ""),
        POD(META(UID_A) ",\"labels\":{\"a b\":\"x\"}", ""),
        POD(META(UID_A) ",\"labels\":{\"a\":\"x\\ny\"}", ""),
        POD(META(UID_A) ",\"labels\":{\"a\":\"x=y\"}", ""),
        POD(META(UID_A) ",\"labels\":{\"/a\":\"x\"}", ""),
        POD(META(UID_A), ",\"status\":{\"containerStatuses\":[{\"name\":\"app\","
                         "\"containerID\":\"containerd://12\"}]}"),
        POD(META(UID_A), ",\"status\":{\"containerStatuses\":[{\"name\":\"app\","
                         "\"containerID\":\"" ID("12aB") "\"}]}"),
        POD(META(UID_A), ",\"status\":{\"containerStatuses\":[{\"name\":\"../app\","
                         "\"containerID\":\"containerd://" ID("12ab") "\"}]}"),
        GOOD, /* the uid is another pod's */
    };
    (void)state;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char *items = mem_must_printf("%s,%s", GOOD, bad[i]);
        struct kubelet_pods *pods = parse_items(items);

        if (pods->n != 1 || pods->n_left_out != 1 || pods->left_out.code == ERR_NONE ||
            strcmp(pods->items[0].uid, UID_STATIC) != 0) {
            fail_msg("%s: %zu pods, %zu left out", bad[i], pods->n, pods->n_left_out);
        }
        kubelet_pods_free(pods);
        free(items);
    }
}

static void test_too_many(void **state)
{
    struct buf items = BUF_INIT(4 << 20);
    struct kubelet_pods *pods;
    (void)state;

    for (int i = 0; i < KUBELET_PODS_MAX + 3; i++) {
        assert_true(buf_printf(&items,
                               "%s{\"metadata\":{\"uid\":\"%032x\",\"namespace\":\"n\","
                               "\"name\":\"p\"}}",
                               i > 0 ? "," : "", (unsigned)i));
    }
    assert_true(buf_append(&items, "", 1));
    pods = parse_items((const char *)buf_head(&items));
    assert_int_equal(pods->n, KUBELET_PODS_MAX);
    assert_int_equal(pods->n_left_out, 3);
    kubelet_pods_free(pods);
    buf_reset(&items);

    /* of labels, of containers: that pod only */
    for (int many = 0; many < 2; many++) {
        assert_true(buf_printf(&items, "%s,{\"metadata\":{%s", GOOD, META(UID_A)));
        assert_true(buf_printf(&items, many == 0 ? ",\"labels\":{"
                                                 : "},\"status\":{\"containerStatuses\":["));
        for (int i = 0; i <= KUBELET_LABELS_MAX; i++) {
            assert_true(many == 0 ? buf_printf(&items, "%s\"l%d\":\"\"", i > 0 ? "," : "", i)
                                  : buf_printf(&items,
                                               "%s{\"name\":\"c%d\",\"containerID\":"
                                               "\"cri-o://%064x\"}",
                                               i > 0 ? "," : "", i, (unsigned)i));
        }
        assert_true(buf_printf(&items, many == 0 ? "}}}" : "]}}"));
        assert_true(buf_append(&items, "", 1));
        pods = parse_items((const char *)buf_head(&items));
        assert_int_equal(pods->n, 1);
        assert_int_equal(pods->n_left_out, 1);
        assert_int_equal(pods->left_out.code, ERR_LIMIT);
        kubelet_pods_free(pods);
        buf_reset(&items);
    }
}

/* --- what a kubelet really says --------------------------------------------------------------- */
static struct kubelet_pods *parse_file(const char *name)
{
    char *path = mem_must_printf("%s/%s", TEST_DATA_DIR, name);
    struct kubelet_pods *pods = NULL;
    struct err err = ERR_INIT;
    char *json = NULL;
    size_t len = 0;

    if (os_read_file(path, 1 << 20, false, &json, &len, &err) == -1 ||
        kubelet_pods_parse(json, len, &pods, &err) == -1) {
        fail_msg("%s: %s", path, err.what);
    }
    free(json);
    free(path);
    return pods;
}

static void test_recorded(void **state)
{
    struct kubelet_pods *pods = parse_file("kubelet-pods.json");
    const struct kubelet_pod *p;
    const struct kubelet_container *c;
    (void)state;

    assert_int_equal(pods->n, 2);
    assert_int_equal(pods->n_left_out, 0);
    assert_null(kubelet_pods_find(pods, STR_LIT("8a29688e-514a-4962-b00b-693a97689480")));
    p = kubelet_pods_find(pods, STR_LIT(UID_A));
    assert_non_null(p);
    assert_string_equal(p->namespace, "shop");
    assert_string_equal(p->name, "web-669f4c586b-9cdm5");
    assert_string_equal(p->service_account, "default");
    assert_string_equal(p->node, "vm");
    assert_int_equal(p->n_labels, 2);
    assert_string_equal(p->labels[0].key, "app");
    assert_string_equal(p->labels[0].value, "web");
    assert_int_equal(p->n_containers, 3); /* init, native sidecar, application */
    c = kubelet_pod_find(
        p, STR_LIT("12b8988ec385d22d7ab2e751f6ccff3ae2ee3f97375fcf6b330d9e4afa44ccdb"));
    assert_non_null(c);
    assert_string_equal(c->name, "meshd");
    assert_string_equal(c->image, "localhost/meshd:dev");
    assert_string_equal(c->digest,
                        "sha256:d3bcf2d255eace59a900bcf82be735fa6ad2cbc7ed42e027cc3d359ede29c39f");
    /* A container of the other pod is none of this one's. */
    assert_null(kubelet_pod_find(p, str_of(pods->items[1].containers[0].id)));
    kubelet_pods_free(pods);
}

static void test_static_pod_and_lag(void **state)
{
    struct kubelet_pods *pods =
        parse_items(POD(META(UID_STATIC), ",\"status\":{\"containerStatuses\":[{\"name\":\"app\"},"
                                          "{\"name\":\"b\",\"containerID\":\"\"}],"
                                          "\"ephemeralContainerStatuses\":[{\"name\":\"debug\","
                                          "\"image\":\"a b\",\"imageID\":\"x\","
                                          "\"containerID\":\"cri-o://" ID("12ab") "\"}]}"));
    const struct kubelet_pod *p = kubelet_pods_find(pods, STR_LIT(UID_STATIC));
    (void)state;

    assert_non_null(p);
    assert_null(p->service_account);
    assert_null(p->node);
    assert_int_equal(p->n_containers, 1); /* the others are not made yet */
    assert_string_equal(p->containers[0].name, "debug");
    assert_string_equal(p->containers[0].id, ID("12ab"));
    assert_null(p->containers[0].image);
    assert_null(p->containers[0].digest);
    kubelet_pods_free(pods);
}

static void test_digests(void **state)
{
    static const struct {
        const char *image_id, *digest;
    } cases[] = {
        {"", ""},
        {"sha256:", ""},
        {"docker.io/library/nginx:1.27", ""},
        {"docker.io/library/nginx@sha256:" ID("12AB"), ""},
        {"docker.io/library/nginx@sha512:" ID("12ab"), ""},
        {"docker.io/library/nginx@sha256:" ID("12ab") "0", ""},
        {"sha256:" ID("12ab"), "sha256:" ID("12ab")},
        {"docker.io/library/nginx@sha256:" ID("12ab"), "sha256:" ID("12ab")},
        {"docker-pullable://nginx@sha256:" ID("12ab"), "sha256:" ID("12ab")},
        {"docker://sha256:" ID("12ab"), "sha256:" ID("12ab")},
        {"a@sha256:" ID("0000") "@sha256:" ID("12ab"), "sha256:" ID("12ab")},
        {"nginx@sha512:" ID("12ab") ID("34cd"), "sha512:" ID("12ab") ID("34cd")},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct str d = kubelet_image_digest(str_of(cases[i].image_id));

        if (!str_eq(d, str_of(cases[i].digest))) {
            fail_msg("%s: \"%.*s\"", cases[i].image_id, STR_ARG(d));
        }
    }
}

/* --- answers ---------------------------------------------------------------------------------- */
#define OK_HEAD "HTTP/1.1 200 OK\r\n"

static void test_answers(void **state)
{
    static const struct {
        const char *bytes, *body; /* body NULL: refused */
        const char *says;
    } cases[] = {
        {"\r\n", NULL, "does not begin"},
        {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", NULL, "does not begin"},
        {"HTTP/2 200\r\n\r\n", NULL, "does not begin"},
        {"HTTP/1.1 20 OK\r\n\r\n", NULL, "does not begin"},
        {"HTTP/1.1 100 Continue\r\n\r\n", NULL, "interim"},
        {OK_HEAD "\r\n", NULL, "no length"},
        {OK_HEAD "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", NULL, "two lengths"},
        {OK_HEAD "Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", NULL, "twice"},
        {OK_HEAD "Content-Length: +2\r\n\r\nok", NULL, "no number"},
        {OK_HEAD "Content-Length: 0x2\r\n\r\nok", NULL, "no number"},
        {OK_HEAD "Content-Length: 18446744073709551617\r\n\r\nok", NULL, "no number"},
        {OK_HEAD "Content-Length: 65\r\n\r\n", NULL, "larger"},
        {OK_HEAD "Content-Length: 2\r\n\r\nokay", NULL, "behind"},
        {OK_HEAD "Content-Length : 2\r\n\r\nok", NULL, "no field"},
        {OK_HEAD " Content-Length: 2\r\n\r\nok", NULL, "no field"},
        {OK_HEAD "Content-Length: 2\n\r\nok", NULL, "CR LF"},
        {OK_HEAD "X: a\rb\r\nContent-Length: 2\r\n\r\nok", NULL, "CR LF"},
        {OK_HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", NULL, "Transfer-Encoding"},
        {OK_HEAD "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok", NULL, "Content-Encoding"},
        {OK_HEAD "Transfer-Encoding: chunked\r\n\r\n\r\n", NULL, "chunk"},
        {OK_HEAD "Transfer-Encoding: chunked\r\n\r\n-1\r\n", NULL, "chunk"},
        {OK_HEAD "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", NULL, "chunk"},
        {OK_HEAD "Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n", NULL, "larger"},
        {OK_HEAD "Transfer-Encoding: chunked\r\n\r\n40\r\n"
                 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n1\r\n",
         NULL, "larger"},
        {OK_HEAD "Transfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", NULL, "longer"},
        {OK_HEAD "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nx", NULL, "behind"},
        {OK_HEAD "Content-Length: 0\r\n\r\n", "", NULL},
        {OK_HEAD "content-length:2\r\nX-Other:\r\n\r\nok", "ok", NULL},
        {"HTTP/1.1 200 \r\nContent-Length: \t 2 \t\r\n\r\nok", "ok", NULL},
        {OK_HEAD "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", "", NULL},
        {OK_HEAD "Transfer-Encoding: chunked\r\n\r\n1;a=b\r\no\r\n0001\r\nk\r\n0\r\nT: x\r\n\r\n",
         "ok", NULL},
    };
    (void)state;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int bytewise = 0; bytewise < 2; bytewise++) {
            size_t n = strlen(cases[i].bytes), at = 0, step = bytewise ? 1 : n;
            enum kubelet_feed fed = KUBELET_FEED_MORE;
            struct kubelet_response r;
            struct err err = ERR_INIT;

            kubelet_response_init(&r, 64);
            for (; at < n && fed != KUBELET_FEED_BAD; at += step) {
                fed = kubelet_response_feed(&r, cases[i].bytes + at, step, &err);
            }
            if (cases[i].body == NULL
                    ? fed != KUBELET_FEED_BAD || strstr(err.what, cases[i].says) == NULL
                    : fed != KUBELET_FEED_DONE ||
                          !str_eq(buf_str(&r.body), str_of(cases[i].body))) {
                fail_msg("case %zu: %d, %s", i, fed, err.what);
            }
            kubelet_response_deinit(&r);
        }
    }
}

static void test_endless_head(void **state)
{
    struct kubelet_response r;
    struct err err = ERR_INIT;
    enum kubelet_feed fed;
    (void)state;

    kubelet_response_init(&r, 64);
    fed = kubelet_response_feed(&r, OK_HEAD, sizeof(OK_HEAD) - 1, &err);
    for (int i = 0; i < KUBELET_HEAD_MAX && fed == KUBELET_FEED_MORE; i++) {
        fed = kubelet_response_feed(&r, "a: b\r\n", 6, &err);
    }
    assert_int_equal(fed, KUBELET_FEED_BAD);
    assert_int_equal(err.code, ERR_LIMIT);
    kubelet_response_deinit(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists_refused), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_pods_left_out), cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_recorded),      cmocka_unit_test(test_static_pod_and_lag),
        cmocka_unit_test(test_digests),       cmocka_unit_test(test_answers),
        cmocka_unit_test(test_endless_head),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
