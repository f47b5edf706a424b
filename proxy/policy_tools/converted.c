/* converted: what `policy convert` prints: a conversion in the canonical form, taken by the engine.
 */
#include <postern/policy_tools.h>

#include <postern/conf.h>

/* As a proxy would take it. */
static int prove(struct str text, struct err *err)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_policy *conf = NULL;
    struct policy *p = NULL;
    int rc = -1;
    if (conf_parse_policy("the converted policy", text.p, text.n, diag, &conf) != 0) {
        if (err != NULL) {
            *err = *conf_diag_get(diag, 0);
        }
    } else {
        p = policy_new(conf, err);
        rc = p != NULL ? 0 : -1;
    }
    policy_free(p);
    conf_policy_free(conf);
    conf_diag_free(diag);
    return rc;
}

int policy_converted_print(struct policy_convert *c, struct buf *out, struct err *err)
{
    struct buf made = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    struct buf pretty = BUF_INIT(POLICY_TOOLS_TEXT_MAX);
    int rc = policy_convert_write(c, &made, err);
    if (rc == 0 && policy_convert_has_policy(c)) {
        rc = policy_fmt("the converted policy", buf_str(&made), &pretty, err);
        rc = rc == 0 ? prove(buf_str(&pretty), err) : rc;
    } else if (rc == 0) {
        rc = buf_append_str(&pretty, buf_str(&made)) ? 0 : -1;
    }
    if (rc == 0 && !buf_append_str(out, buf_str(&pretty))) {
        rc = err_set(err, ERR_LIMIT, "the policy does not fit");
    }
    buf_reset(&made);
    buf_reset(&pretty);
    return rc;
}
