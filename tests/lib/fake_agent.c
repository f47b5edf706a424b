#include "fake_agent.h"

#include <postern/os.h>
#include <postern/proto.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static X509 *issue(struct fake_agent *a, const char *id, EVP_PKEY *key, bool ca)
{
    uint8_t point[65];
    X509 *cert = NULL;
    int64_t now_s = os_wall_s();
    POSTERN_ASSERT(x509_key_point(key, point, NULL) == 0);
    struct x509_issue what = {.spiffe_id = str_of(id),
                              .point = point,
                              .ca = ca,
                              .path_len = -1,
                              .not_before_s = now_s - 10,
                              .not_after_s = now_s + (ca ? 86400 : a->ttl_s)};
    POSTERN_ASSERT(x509_issue(&what, ca ? NULL : a->ca, ca ? key : a->ca_key, &cert, NULL) == 0);
    return cert;
}

static ProtobufCBinaryData der_of(X509 *cert)
{
    ProtobufCBinaryData der = {0};
    uint8_t *bytes = NULL;
    POSTERN_ASSERT(x509_to_der(cert, &bytes, &der.len, NULL) == 0);
    der.data = bytes;
    return der;
}

/* --- messages --------------------------------------------------------------------------------- */

static void send_message(struct fake_agent *a, struct grpc_call *call, uint8_t *message, size_t len)
{
    if (a->corrupt) {
        POSTERN_ASSERT(grpc_call_send(call, "\xff\xff\xff", 3) == GRPC_SENT);
    } else {
        POSTERN_ASSERT(grpc_call_send(call, message, len) == GRPC_SENT);
    }
}

static void make_svids(struct fake_agent *a)
{
    Workload__X509SVIDResponse m;
    Workload__X509SVID svids[FAKE_IDS_MAX];
    Workload__X509SVID *list[FAKE_IDS_MAX];
    uint8_t *secret[FAKE_IDS_MAX] = {0};
    workload__x509_svidresponse__init(&m);
    m.svids = list;
    for (size_t i = 0; i < FAKE_IDS_MAX && a->ids[i] != NULL; i++) {
        EVP_PKEY *key = x509_key_new(NULL);
        X509 *cert = issue(a, a->ids[i], key, false);
        workload__x509_svid__init(&svids[i]);
        svids[i].spiffe_id = mem_must_strdup(a->ids[i]);
        svids[i].x509_svid = der_of(cert);
        svids[i].bundle = der_of(a->ca);
        POSTERN_ASSERT(x509_key_to_pkcs8(key, &secret[i], &svids[i].x509_svid_key.len, NULL) == 0);
        svids[i].x509_svid_key.data = secret[i];
        list[m.n_svids++] = &svids[i];
        X509_free(cert);
        EVP_PKEY_free(key);
    }
    free(a->svids_message);
    a->svids_len = workload__x509_svidresponse__get_packed_size(&m);
    a->svids_message = mem_must_calloc(1, a->svids_len + 1);
    workload__x509_svidresponse__pack(&m, a->svids_message);
    for (size_t i = 0; i < m.n_svids; i++) {
        free(svids[i].spiffe_id);
        free(svids[i].x509_svid.data);
        free(svids[i].bundle.data);
        mem_secret_free(secret[i]);
    }
}

static void send_bundles(struct fake_agent *a, struct grpc_call *call)
{
    char key[] = "spiffe://example.org";
    Workload__X509BundlesResponse m;
    Workload__X509BundlesResponse__BundlesEntry entry;
    Workload__X509BundlesResponse__BundlesEntry *list[] = {&entry};
    workload__x509_bundles_response__init(&m);
    workload__x509_bundles_response__bundles_entry__init(&entry);
    entry.key = key;
    entry.value = der_of(a->ca);
    m.bundles = list;
    m.n_bundles = 1;
    size_t len = workload__x509_bundles_response__get_packed_size(&m);
    uint8_t *message = mem_must_calloc(1, len);
    workload__x509_bundles_response__pack(&m, message);
    send_message(a, call, message, len);
    free(message);
    free(entry.value.data);
}

static void send_key_sets(struct fake_agent *a, struct grpc_call *call)
{
    Workload__JWTBundlesResponse m;
    Workload__JWTBundlesResponse__BundlesEntry entries[FAKE_JWT_MAX];
    Workload__JWTBundlesResponse__BundlesEntry *list[FAKE_JWT_MAX];
    workload__jwtbundles_response__init(&m);
    m.bundles = list;
    for (size_t i = 0; i < FAKE_JWT_MAX && a->jwt[i].name != NULL; i++) {
        workload__jwtbundles_response__bundles_entry__init(&entries[i]);
        entries[i].key = (char *)(uintptr_t)a->jwt[i].name;
        entries[i].value.data = (uint8_t *)(uintptr_t)a->jwt[i].set;
        entries[i].value.len = strlen(a->jwt[i].set);
        list[m.n_bundles++] = &entries[i];
    }
    size_t len = workload__jwtbundles_response__get_packed_size(&m);
    uint8_t *message = mem_must_calloc(1, len + 1);
    workload__jwtbundles_response__pack(&m, message);
    send_message(a, call, message, len);
    free(message);
}

static void send_signed(struct fake_agent *a, struct grpc_call *call, const uint8_t point[65],
                        const char *id)
{
    X509 *cert = NULL;
    int64_t now_s = os_wall_s();
    Postern__V1__SignX509SVIDResponse m;
    struct x509_issue what = {.spiffe_id = str_of(a->sign_as != NULL ? a->sign_as : id),
                              .point = point,
                              .not_before_s = now_s - 10,
                              .not_after_s = now_s + a->ttl_s};
    POSTERN_ASSERT(x509_issue(&what, a->ca, a->ca_key, &cert, NULL) == 0);
    postern__v1__sign_x509_svidresponse__init(&m);
    m.spiffe_id = mem_must_strdup(id);
    m.x509_svid = der_of(cert);
    size_t len = postern__v1__sign_x509_svidresponse__get_packed_size(&m);
    uint8_t *message = mem_must_calloc(1, len);
    postern__v1__sign_x509_svidresponse__pack(&m, message);
    send_message(a, call, message, len);
    free(message);
    free(m.spiffe_id);
    free(m.x509_svid.data);
    X509_free(cert);
}

/* --- methods ---------------------------------------------------------------------------------- */

static void on_open(struct grpc_call *call, void *arg)
{
    struct fake_agent *a = arg;
    struct str value;
    if (!grpc_call_metadata(call, STR_LIT(PROTO_WORKLOAD_KEY), 0, &value) ||
        !str_eq(value, STR_LIT(PROTO_WORKLOAD_VALUE))) {
        a->n_without_header++;
        grpc_call_finish(call, GRPC_INVALID_ARGUMENT, "security header missing from request");
    }
}

static void keep_stream(struct fake_agent *a, struct grpc_call *call)
{
    for (size_t i = 0; i < FAKE_STREAMS_MAX; i++) {
        if (a->streams[i] == NULL) {
            a->streams[i] = call;
            return;
        }
    }
    POSTERN_ASSERT(!"more streams than a test needs");
}

static void on_cancel(struct grpc_call *call, void *arg)
{
    struct fake_agent *a = arg;
    for (size_t i = 0; i < FAKE_STREAMS_MAX; i++) {
        if (a->streams[i] == call) {
            a->streams[i] = NULL;
        }
    }
}

static bool refused(struct grpc_call *call, enum grpc_status status)
{
    if (status != GRPC_OK) {
        grpc_call_finish(call, status, "as the test wants it");
    }
    return status != GRPC_OK;
}

static void on_fetch_svid(struct grpc_call *call, void *arg, struct str message)
{
    struct fake_agent *a = arg;
    (void)message;
    a->n_svids++;
    if (!refused(call, a->svid_status)) {
        if (a->svids_message == NULL) {
            make_svids(a);
        }
        send_message(a, call, a->svids_message, a->svids_len);
        keep_stream(a, call);
    }
}

static void on_fetch_bundles(struct grpc_call *call, void *arg, struct str message)
{
    struct fake_agent *a = arg;
    (void)message;
    a->n_bundles++;
    if (!refused(call, a->bundles_status)) {
        send_bundles(a, call);
        keep_stream(a, call);
    }
}

static void on_fetch_jwt_bundles(struct grpc_call *call, void *arg, struct str message)
{
    struct fake_agent *a = arg;
    (void)message;
    a->n_jwt++;
    if (!refused(call, a->jwt_status)) {
        send_key_sets(a, call);
        keep_stream(a, call);
    }
}

static void on_sign(struct grpc_call *call, void *arg, struct str message)
{
    struct fake_agent *a = arg;
    uint8_t point[65];
    a->n_sign++;
    if (refused(call, a->sign_status)) {
        return;
    }
    Postern__V1__SignX509SVIDRequest *request =
        postern__v1__sign_x509_svidrequest__unpack(NULL, message.n, (const uint8_t *)message.p);
    POSTERN_ASSERT(request != NULL);
    snprintf(a->last_sign_id, sizeof(a->last_sign_id), "%s", request->spiffe_id);
    struct str csr = {(const char *)request->csr.data, request->csr.len};
    POSTERN_ASSERT(x509_csr_check(csr, point, NULL) == 0);
    send_signed(a, call, point, request->spiffe_id[0] != '\0' ? request->spiffe_id : a->ids[0]);
    grpc_call_finish(call, GRPC_OK, NULL);
    postern__v1__sign_x509_svidrequest__free_unpacked(request, NULL);
}

static const struct grpc_method methods[] = {
    {.path = PROTO_FETCH_X509_SVID,
     .streaming = true,
     .on_open = on_open,
     .on_request = on_fetch_svid,
     .on_cancel = on_cancel},
    {.path = PROTO_FETCH_X509_BUNDLES,
     .streaming = true,
     .on_open = on_open,
     .on_request = on_fetch_bundles,
     .on_cancel = on_cancel},
    {.path = PROTO_FETCH_JWT_BUNDLES,
     .streaming = true,
     .on_open = on_open,
     .on_request = on_fetch_jwt_bundles,
     .on_cancel = on_cancel},
    {.path = PROTO_SIGN_X509_SVID, .on_open = on_open, .on_request = on_sign},
};

/* --- its life --------------------------------------------------------------------------------- */

static void on_accept(void *arg, unsigned ready)
{
    struct fake_agent *a = arg;
    (void)ready;
    int fd = accept4(a->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd != -1) {
        struct grpc_conn *conn = NULL;
        a->n_connections++;
        POSTERN_ASSERT(grpc_server_add_connection(a->server, fd, NULL, NULL, &conn, NULL) == 0);
    }
}

void fake_agent_up(struct fake_agent *a)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    memcpy(sun.sun_path, a->path, sizeof(a->path));
    a->server =
        grpc_server_new(a->loop, methods, sizeof(methods) / sizeof(methods[0]), NULL, NULL, a);
    a->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    POSTERN_ASSERT(a->listen_fd != -1);
    POSTERN_ASSERT(bind(a->listen_fd, (struct sockaddr *)&sun, sizeof(sun)) == 0);
    POSTERN_ASSERT(listen(a->listen_fd, 16) == 0);
    a->io = loop_io_new(a->loop, a->listen_fd, on_accept, a);
    loop_io_want(a->io, LOOP_READ);
}

void fake_agent_down(struct fake_agent *a)
{
    if (a->io != NULL) {
        a->io = loop_io_free(a->io);
        close(a->listen_fd);
        unlink(a->path);
        a->server = grpc_server_free(a->server);
        memset(a->streams, 0, sizeof(a->streams));
    }
}

void fake_agent_new_authority(struct fake_agent *a)
{
    X509_free(a->ca);
    EVP_PKEY_free(a->ca_key);
    a->ca_key = x509_key_new(NULL);
    a->ca = issue(a, "spiffe://example.org", a->ca_key, true);
}

struct fake_agent *fake_agent_new(struct loop *loop)
{
    struct fake_agent *a = mem_must_new(struct fake_agent);
    a->loop = loop;
    a->ttl_s = 3600;
    a->ids[0] = "spiffe://example.org/first";
    a->ids[1] = "spiffe://example.org/second";
    snprintf(a->dir, sizeof(a->dir), "/tmp/postern-test-XXXXXX");
    POSTERN_ASSERT(mkdtemp(a->dir) != NULL);
    snprintf(a->path, sizeof(a->path), "%s/s", a->dir);
    fake_agent_new_authority(a);
    fake_agent_up(a);
    return a;
}

struct fake_agent *fake_agent_free(struct fake_agent *a)
{
    if (a != NULL) {
        fake_agent_down(a);
        rmdir(a->dir);
        X509_free(a->ca);
        EVP_PKEY_free(a->ca_key);
        free(a->svids_message);
        free(a);
    }
    return NULL;
}

void fake_agent_push(struct fake_agent *a, bool renew)
{
    if (renew || a->svids_message == NULL) {
        make_svids(a);
    }
    for (size_t i = 0; i < FAKE_STREAMS_MAX; i++) {
        if (a->streams[i] == NULL) {
            continue;
        }
        if (strcmp(grpc_call_method(a->streams[i])->path, PROTO_FETCH_X509_SVID) == 0) {
            send_message(a, a->streams[i], a->svids_message, a->svids_len);
        } else if (strcmp(grpc_call_method(a->streams[i])->path, PROTO_FETCH_JWT_BUNDLES) == 0) {
            send_key_sets(a, a->streams[i]);
        } else {
            send_bundles(a, a->streams[i]);
        }
    }
}

void fake_agent_end(struct fake_agent *a, enum grpc_status status)
{
    for (size_t i = 0; i < FAKE_STREAMS_MAX; i++) {
        if (a->streams[i] != NULL) {
            struct grpc_call *call = a->streams[i];
            a->streams[i] = NULL;
            grpc_call_finish(call, status, "as the test wants it");
        }
    }
}
