/* kubernetes: the node's kubelet, in an Agent file. What is less than a checked certificate has to
 * be said by name. */
#include <postern/conf.h>

#include "config_priv.h"

static void check_kubelet(struct context *c, const struct node *map, void *value);
static void check_kubernetes(struct context *c, const struct node *map, void *value);

static const struct field fields_kubelet[] = {
    {.name = "address",
     .type = TYPE_ADDRESS,
     AT(struct conf_kubernetes, address),
     .def = "127.0.0.1:10250",
     .doc = "Where the kubelet of this node answers."},
    {.name = "ca_file",
     .type = TYPE_PATH,
     AT(struct conf_kubernetes, ca_file),
     .doc = "PEM: whose signature its certificate has to have. Read again for every question, as "
            "the files below."},
    {.name = "server_name",
     .type = TYPE_NAME,
     .max = 253,
     AT(struct conf_kubernetes, server_name),
     .def_doc = "the address",
     .doc = "The DNS name or IP address that its certificate has to be for."},
    {.name = "token_file",
     .type = TYPE_PATH,
     AT(struct conf_kubernetes, token_file),
     .doc = "A service account's token, sent as bearer. It may be replaced at any time."},
    {.name = "cert_file",
     .type = TYPE_PATH,
     AT(struct conf_kubernetes, cert_file),
     .doc = "PEM: a client certificate, instead of a token."},
    {.name = "key_file",
     .type = TYPE_PATH,
     AT(struct conf_kubernetes, key_file),
     .doc = "PEM: its key."},
    {.name = "insecure",
     .type = TYPE_BOOL,
     AT(struct conf_kubernetes, insecure),
     .def = "false",
     .doc = "Whoever answers at the address is believed, and gets the token."},
    {.name = "plaintext",
     .type = TYPE_BOOL,
     AT(struct conf_kubernetes, plaintext),
     .def = "false",
     .doc = "HTTP without TLS: the read-only port of old clusters. On loopback only."},
};
static const struct table table_kubelet = {
    .name = "kubelet", FIELDS(fields_kubelet), .check = check_kubelet};

static const struct field fields_kubernetes[] = {
    {.name = "kubelet",
     .type = TYPE_MAP,
     .table = &table_kubelet,
     .required = true,
     .doc = "Who tells which pods run here."},
    {.name = "node_name",
     .type = TYPE_NAME,
     .max = 253,
     AT(struct conf_kubernetes, node_name),
     .def_doc = "any",
     .doc = "The node's name: an answer with a pod of another node is not taken."},
    {.name = "poll",
     .type = TYPE_DURATION_MS,
     .min = 1000,
     .max = 600000,
     AT(struct conf_kubernetes, poll_ms),
     .def = "5s",
     .doc = "How often it is asked when nothing presses; a caller that is not known yet makes it "
            "be asked at once."},
};
const struct table table_kubernetes = {
    .name = "kubernetes", FIELDS(fields_kubernetes), .check = check_kubernetes};

static const struct node *key_or(const struct node *map, const char *key)
{
    const struct node *n = node_get(map, key);

    return n != NULL ? n : map;
}

static void check_kubelet(struct context *c, const struct node *map, void *value)
{
    const struct conf_kubernetes *k = value;
    int judged = (k->ca_file != NULL) + k->insecure + k->plaintext;
    bool cert = node_get(map, "cert_file") != NULL, key = node_get(map, "key_file") != NULL;
    bool token = node_get(map, "token_file") != NULL;

    if (judged == 0 && node_get(map, "ca_file") == NULL) {
        report(c, map, "ca_file", "or, said by name, insecure: true",
               "nothing tells whether it is the kubelet that answers");
    } else if (judged > 1) {
        report(c, map, "one of ca_file, insecure: true and plaintext: true", NULL,
               "the kubelet's certificate is judged in more than one way");
    }
    if (k->plaintext && k->address.len > 0 && !sockaddr_is_loopback(&k->address)) {
        report(c, key_or(map, "address"), "a loopback address", NULL,
               "'plaintext' over a network would let anybody say which pods run here");
    }
    if (cert != key) {
        report(c, map, "both cert_file and key_file", NULL, "a client certificate has two files");
    } else if (cert && token) {
        report(c, map, "token_file, or cert_file and key_file", NULL,
               "the agent would show itself to the kubelet in two ways");
    } else if (!cert && !token && !k->plaintext) {
        report(c, map, "token_file, or cert_file and key_file", NULL,
               "the kubelet tells its pods to nobody it does not know");
    }
    if (k->plaintext && (cert || token)) {
        report(c, map, NULL, NULL, "a token or certificate is not used in plaintext");
    }
}

/* Only called where the file has the key. */
static void check_kubernetes(struct context *c, const struct node *map, void *value)
{
    struct conf_kubernetes *k = value;

    (void)c;
    (void)map;
    k->configured = true;
}
