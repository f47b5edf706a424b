/*
 * postern-intercept: puts the redirection into force, compares it or takes it away, in the network
 * namespace that it is started in. Exit status: 0 done (or, with --check, as asked for), 1 it
 * failed (or differs), 2 the command line is wrong.
 */
#include "kernel_priv.h"

#include <linux/capability.h>
#include <postern/sandbox.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

static int fail(const struct err *err)
{
    char text[1200];
    fprintf(stderr, "postern intercept: %s\n", err_text(err, text, sizeof(text)));
    return err->code == ERR_USAGE ? 2 : 1;
}

static void write_out(FILE *to, const struct buf *b)
{
    if (buf_len(b) > 0) {
        (void)fwrite(buf_head(b), 1, buf_len(b), to);
    }
}

static int print_rules(const struct intercept_options *o, const struct intercept_cgroup *cgroup)
{
    struct buf batch = BUF_INIT(INTERCEPT_TEXT_MAX);
    if (intercept_needs_routes(o)) {
        routes_print(o, &batch);
    }
    intercept_batch(o, cgroup, &batch);
    write_out(stdout, &batch);
    buf_reset(&batch);
    return fflush(stdout) == 0 ? 0 : 1;
}

int apply_rules(struct kernel *k, const struct intercept_options *o,
                const struct intercept_cgroup *cgroup, struct err *err)
{
    if (intercept_needs_routes(o) && routes_apply(o, err) != 0) {
        return -1;
    }
    struct buf batch = BUF_INIT(INTERCEPT_TEXT_MAX + 1);
    intercept_batch(o, cgroup, &batch);
    POSTERN_ASSERT(buf_append(&batch, "", 1));
    int rc = kernel_run(k, (const char *)buf_head(&batch), err);
    buf_reset(&batch);
    if (rc == 0 && !intercept_needs_routes(o)) {
        routes_remove(); /* what another mode may have left */
    }
    return rc;
}

/* The second is what people forget. */
void tell_applied(const struct intercept_options *o)
{
    char text[120] = "";
    int n = 0;
    if (o->outbound) {
        n = snprintf(text, sizeof(text), "outbound to port %u", o->outbound_port);
    }
    if (o->inbound) {
        snprintf(text + n, sizeof(text) - (size_t)n, "%sinbound to port %u", n > 0 ? ", " : "",
                 o->inbound_port);
    }
    fprintf(stderr, "postern intercept: TCP is redirected: %s\n", text);
    fprintf(stderr, "postern intercept: connections that were open before are cut\n");
    if (intercept_needs_routes(o)) {
        fprintf(stderr, "postern intercept: the workload sees its clients' addresses, where the "
                        "listener is `transparent: true`\n");
    }
    if (o->udp_drop || o->drop_all) {
        fprintf(stderr, "postern intercept: UDP is not redirected: %s\n",
                !o->udp_drop ? "it arrives as it is, and does not leave"
                             : "it neither leaves nor arrives, but for what is listed");
    } else {
        fprintf(stderr,
                "postern intercept: UDP is not redirected: it leaves and arrives as it is\n");
    }
    if (o->ipv4_only) {
        fprintf(stderr,
                "postern intercept: IPv6 is not redirected: it leaves and arrives as it is\n");
    }
    if (o->outbound && o->has_uid && o->proxy_uid == 0) {
        fprintf(stderr, "postern intercept: what root opens is not redirected: run the proxy under "
                        "a uid of its own\n");
    }
}

static int remove_rules(struct kernel *k, struct err *err)
{
    struct buf listing = BUF_INIT(4 * INTERCEPT_TEXT_MAX);
    bool there = false;
    int rc = kernel_list(k, "postern", &listing, &there, err);
    buf_reset(&listing);
    if (rc == 0) {
        rc = kernel_run(k, "add table inet postern\ndelete table inet postern\n", err);
    }
    if (rc == 0) {
        routes_remove();
    }
    if (rc == 0) {
        fprintf(stderr, "postern intercept: %s\n",
                there ? "removed: nothing is redirected" : "there was nothing to remove");
    }
    return rc;
}

static int check_rules(struct kernel *k, const struct intercept_options *o,
                       const struct intercept_cgroup *cgroup, struct err *err)
{
    struct buf said = BUF_INIT(4 * INTERCEPT_TEXT_MAX);
    int rc = compare_tables(k, o, cgroup, &said, err);
    if (rc >= 0 && intercept_needs_routes(o)) {
        int ways = routes_check(o, &said, err);
        rc = ways == -1 ? -1 : rc | ways;
    }
    if (rc == 1) {
        fprintf(stderr, "postern intercept: the rules in the kernel are not those asked for\n");
        write_out(stderr, &said);
    } else if (rc == 0) {
        printf("the rules in the kernel are those asked for\n");
    }
    buf_reset(&said);
    return rc;
}

/* From here on only rules can be changed: no other capability, nothing gained by exec. */
static int drop_privileges(struct err *err)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return err_sys(err, "cannot set no_new_privs");
    }
    struct sandbox_report have;
    sandbox_get_report(-1, &have);
    uint64_t keep = have.caps & (UINT64_C(1) << CAP_NET_ADMIN);
    if (keep == 0) {
        err_set(err, ERR_DENIED, "this process has no CAP_NET_ADMIN");
        return err_advise(err, "run it as root in the network namespace that it is about, or give "
                               "the container NET_ADMIN");
    }
    return sandbox_drop_caps(keep, err) != 0 ? -1 : sandbox_limits(true, err);
}

static int run(struct intercept_options *o, struct err *err)
{
    struct intercept_cgroup cgroup;
    const struct intercept_cgroup *by_cgroup = NULL;
    if (o->proxy_cgroup[0] != '\0' && o->outbound && o->action != INTERCEPT_REMOVE) {
        if (cgroup_resolve(o->proxy_cgroup, &cgroup, err) != 0) {
            return -1;
        }
        by_cgroup = &cgroup;
    }
    if (o->action == INTERCEPT_PRINT) {
        return print_rules(o, by_cgroup);
    }
    if (drop_privileges(err) != 0) {
        return -1;
    }
    struct kernel *k = kernel_open(err);
    int rc = k == NULL ? -1 : 0;
    bool applies = o->action == INTERCEPT_APPLY || o->action == INTERCEPT_WATCH;
    if (rc == 0 && applies && by_cgroup != NULL) {
        rc = cgroup_prove(k, by_cgroup, err);
    }
    if (rc == 0 && o->action == INTERCEPT_APPLY) {
        rc = apply_rules(k, o, by_cgroup, err);
        if (rc == 0) {
            tell_applied(o);
        }
    } else if (rc == 0 && o->action == INTERCEPT_WATCH) {
        rc = watch_rules(k, o, by_cgroup, err);
    } else if (rc == 0) {
        rc =
            o->action == INTERCEPT_CHECK ? check_rules(k, o, by_cgroup, err) : remove_rules(k, err);
    }
    kernel_free(k);
    return rc;
}

int main(int argc, char **argv)
{
    static struct intercept_options o;
    struct err err = ERR_INIT;
    if (intercept_options_parse(argc, argv, &o, &err) != 0) {
        return fail(&err);
    }
    if (o.help) {
        printf("%s", intercept_usage());
        return 0;
    }
    int rc = run(&o, &err);
    return rc >= 0 ? rc : fail(&err);
}
