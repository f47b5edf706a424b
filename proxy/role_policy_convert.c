/* role_policy_convert: `postern policy convert`: policies of Istio and Kubernetes, said again as
 * ours. Files and options; the work is done in policy_convert. */
#include "role_policy.h"

#include <errno.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <postern/policy_convert.h>
#include <postern/policy_tools.h>
#include <postern/spiffe.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "roles_priv.h"

enum { INPUT_MAX = 4 << 20, TCP_PORTS_MAX = 256 };

struct ports {
    uint16_t items[TCP_PORTS_MAX];
    size_t n;
};

/* "none", or numbers with commas between them. */
static bool take_ports(const char *list, struct ports *ret)
{
    if (strcmp(list, "none") == 0) {
        return true;
    }
    for (const char *p = list;; p++) {
        size_t n = strcspn(p, ",");
        uint64_t port;
        if (!str_to_u64((struct str){p, n}, 65535, &port) || port == 0 || ret->n == TCP_PORTS_MAX) {
            return false;
        }
        ret->items[ret->n++] = (uint16_t)port;
        p += n;
        if (*p == '\0') {
            return true;
        }
    }
}

/* Standard input, whole; 0, or 2 after telling why. */
static int read_input(char **ret_text, size_t *ret_len)
{
    struct buf in = BUF_INIT(INPUT_MAX);
    size_t n = 0;
    bool fits = true;
    char block[16384];
    do {
        n = fread(block, 1, sizeof(block), stdin);
        fits = buf_append(&in, block, n);
    } while (n > 0 && fits);
    if (!fits || ferror(stdin) != 0) {
        fprintf(stderr, "postern: standard input %s\n",
                fits ? strerrordesc_np(errno) : "is larger than 4194304 bytes");
        buf_reset(&in);
        return 2;
    }
    *ret_text = mem_must_strndup((const char *)buf_head(&in), buf_len(&in));
    *ret_len = buf_len(&in);
    buf_reset(&in);
    return 0;
}

static int add_file(struct policy_convert *c, const char *path)
{
    mem_autofree char *text = NULL;
    size_t len = 0;
    struct err err = ERR_INIT;
    bool standard = strcmp(path, "-") == 0;
    if (standard && read_input(&text, &len) != 0) {
        return 2;
    }
    if (!standard && os_read_file(path, INPUT_MAX, false, &text, &len, &err) != 0) {
        if (err.where[0] == '\0') {
            err_where(&err, "%s", path);
        }
        return role_say("policy convert", &err, 2);
    }
    policy_convert_add(c, standard ? "standard input" : path, (struct str){text, len});
    return 0;
}

static int convert(struct policy_convert *c, char **paths, int n)
{
    struct buf out = BUF_INIT(INPUT_MAX);
    struct err err = ERR_INIT;
    int rc = 0;
    for (int i = 0; i < n && rc == 0; i++) {
        rc = add_file(c, paths[i]);
    }
    if (rc == 0 && policy_converted_print(c, &out, &err) != 0) {
        role_print_diag(policy_convert_errors(c));
        rc = role_say("policy convert", &err, 2);
    }
    if (rc == 0) {
        policy_tell_doubts(policy_convert_doubts(c));
        rc = policy_print(&out);
        rc = rc == 0 && conf_diag_count(policy_convert_doubts(c)) > 0 ? 1 : rc;
    }
    buf_reset(&out);
    return rc;
}

static bool is_trust_domain(const char *text)
{
    mem_autofree char *id = mem_must_printf("spiffe://%s", text);
    struct spiffe_id parsed;
    struct err err = ERR_INIT;
    return spiffe_id_parse(str_of(id), &parsed, &err) == 0 && parsed.path.n == 0;
}

int policy_convert_main(int argc, char **argv)
{
    struct policy_convert_options o = {.trust_domain = NULL};
    struct ports ports = {.n = 0};
    const char *list = NULL;
    const struct role_text texts[] = {{"--trust-domain", &o.trust_domain},
                                      {"--root-namespace", &o.root_namespace},
                                      {"--namespace", &o.default_namespace},
                                      {"--tcp-ports", &list}};
    int first = 1;
    for (; first < argc && argv[first][0] == '-' && argv[first][1] != '\0'; first++) {
        if (strcmp(argv[first], "--no-implied-allow") == 0) {
            o.no_implied_allow = true;
        } else if (strcmp(argv[first], "--ignore-egress") == 0) {
            o.ignore_egress = true;
        } else if (!role_take_text(texts, 4, argc, argv, &first)) {
            return policy_usage();
        }
    }
    if (first == argc || (list != NULL && !take_ports(list, &ports)) ||
        (o.trust_domain != NULL && !is_trust_domain(o.trust_domain))) {
        return policy_usage();
    }
    o.tcp_ports_known = list != NULL;
    o.tcp_ports = (struct policy_convert_ports){ports.items, ports.n};
    struct policy_convert *c = policy_convert_new(&o);
    int rc = convert(c, argv + first, argc - first);
    policy_convert_free(c);
    return rc;
}
