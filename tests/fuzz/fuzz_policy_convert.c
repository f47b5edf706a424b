/*
 * Manifests of Istio and Kubernetes. Properties: either a policy comes out, which a proxy takes and
 * which is its own canonical form, or nothing does and it was said why; what is said holds nothing
 * that a terminal obeys; the same input gives the same output. The first byte chooses options.
 */
#include <postern/policy_convert.h>
#include <postern/policy_tools.h>

#include "conf_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool convert(const uint8_t *data, size_t size, struct buf *out)
{
    static const uint16_t ports[] = {80, 9000};
    uint8_t options = size > 0 ? data[0] : 0;
    struct policy_convert_options o = {
        .trust_domain = (options & 1) != 0 ? "a.b" : NULL,
        .tcp_ports_known = (options & 2) != 0,
        .tcp_ports = ports,
        .n_tcp_ports = 2,
        .no_implied_allow = (options & 4) != 0,
        .ignore_egress = (options & 8) != 0,
    };
    struct policy_convert *c = policy_convert_new(&o);
    struct err err = ERR_INIT;
    policy_convert_add(c, "f", (struct str){(const char *)data, size});
    bool ok = policy_convert_write(c, out, &err) == 0;
    assert(ok == (err.code == ERR_NONE));
    assert(!ok || conf_diag_count(policy_convert_errors(c)) == 0);
    struct buf said = BUF_INIT(1 << 20);
    assert(conf_diag_print(policy_convert_errors(c), &said));
    assert(conf_diag_print(policy_convert_doubts(c), &said));
    for (size_t i = 0; i < buf_len(&said); i++) {
        uint8_t ch = buf_head(&said)[i];
        assert(ch == '\n' || (ch >= 0x20 && ch != 0x7f));
    }
    buf_reset(&said);
    policy_convert_free(c);
    return ok;
}

/* Comments alone are what becomes of modes. */
static void take(const struct buf *out)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    struct buf again = BUF_INIT(8 << 20);
    struct str text = buf_str(out);
    const char *kind = memmem(text.p, text.n, "\nkind: Policy\n", 14);
    if (kind != NULL) {
        assert(conf_parse_policy("p", text.p, text.n, diag, &conf) == 0);
        assert(policy_fmt("p", text, &again, NULL) == 0 && str_eq(buf_str(&again), text));
    }
    buf_reset(&again);
    conf_policy_free(conf);
    conf_diag_free(diag);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf out = BUF_INIT(8 << 20);
    struct buf again = BUF_INIT(8 << 20);
    bool ok = convert(data, size, &out);
    assert(ok == convert(data, size, &again) && str_eq(buf_str(&out), buf_str(&again)));
    assert(ok || buf_len(&out) == 0);
    if (ok) {
        take(&out);
    }
    buf_reset(&out);
    buf_reset(&again);
    return 0;
}
