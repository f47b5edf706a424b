/* kernel: batches and listings through libnftables, and what its refusals mean. */
#include "kernel_priv.h"

#include <nftables/libnftables.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/netlink.h>

struct kernel {
    struct nft_ctx *nft;
    bool from_memory;
};

struct kernel *kernel_open(struct err *err)
{
    /* libnftables ends the process when it gets no socket: ask first. */
    os_autofd int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (fd == -1) {
        err_sys(err, "this kernel does not speak nftables");
        err_advise(err,
                   "it needs CONFIG_NF_TABLES with CONFIG_NF_TABLES_INET (modprobe nf_tables)");
        return NULL;
    }
    struct kernel *k = mem_must_new(struct kernel);
    k->nft = nft_ctx_new(NFT_CTX_DEFAULT);
    if (k->nft == NULL || nft_ctx_buffer_output(k->nft) != 0 || nft_ctx_buffer_error(k->nft) != 0) {
        err_set(err, ERR_SYSTEM, "libnftables cannot be set up");
        return kernel_free(k);
    }
    return k;
}

struct kernel *kernel_free(struct kernel *k)
{
    if (k != NULL) {
        if (k->nft != NULL) {
            nft_ctx_free(k->nft);
        }
        free(k);
    }
    return NULL;
}

/* What a kernel lacks that does not know a part of our rules. */
static const char *missing_part(const char *rule)
{
    static const struct {
        const char *word, *advice;
    } parts[] = {
        {"fib ", "the kernel may lack CONFIG_NFT_FIB_INET (modprobe nft_fib_inet)"},
        {"redirect", "the kernel may lack CONFIG_NFT_REDIR or CONFIG_NF_NAT (modprobe nft_redir)"},
        {"socket cgroupv2", "the kernel may lack CONFIG_NFT_SOCKET with cgroups (modprobe "
                            "nft_socket); name the proxy by --proxy-uid instead"},
        {"reject", "the kernel may lack CONFIG_NFT_REJECT_INET (modprobe nft_reject_inet)"},
        {"tproxy", "the kernel may lack CONFIG_NFT_TPROXY (modprobe nft_tproxy); without it "
                   "--inbound-mode redirect remains"},
        {"ct status", "the kernel may lack CONFIG_NFT_CT (modprobe nft_ct)"},
        {"type route", "the kernel may lack route chains of family inet (5.2 has them)"},
        {"type nat", "the kernel may lack CONFIG_NFT_NAT (modprobe nft_nat nft_chain_nat)"},
    };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        if (strstr(rule, parts[i].word) != NULL) {
            return parts[i].advice;
        }
    }
    return "the kernel may lack a part of nftables: see the modules nft_*";
}

/* libnftables says "PLACE: Error: REASON", then the line it means, then marks below it. */
static int explain(const char *text, struct err *err)
{
    const char *reason = strstr(text, "Error: ");
    reason = reason != NULL ? reason + strlen("Error: ") : text;
    size_t len = strcspn(reason, "\n");
    const char *rule = reason[len] == '\n' ? reason + len + 1 : "";
    rule += strspn(rule, " \t");
    size_t rule_len = strcspn(rule, "\n");
    char line[200];
    snprintf(line, sizeof(line), "%.*s", (int)(rule_len < 160 ? rule_len : 160), rule);
    if (strstr(text, "Operation not permitted") != NULL) {
        err_set(err, ERR_DENIED, "the kernel does not let this process change rules");
        return err_advise(err, "it needs CAP_NET_ADMIN in this network namespace: run it as root, "
                               "or give the container NET_ADMIN");
    }
    err_set(err, ERR_SYSTEM, "the kernel refused%s%s%s: %.*s", line[0] != '\0' ? " '" : "", line,
            line[0] != '\0' ? "'" : " the rules", (int)(len < 160 ? len : 160), reason);
    return err_advise(err, "%s", missing_part(line));
}

/* A batch that is read from a file is refused with the line that is meant, one from memory is not.
 */
static int run_as_file(struct kernel *k, const char *batch)
{
    char path[40];
    if (k->from_memory) {
        return nft_run_cmd_from_buffer(k->nft, batch);
    }
    os_autofd int fd = memfd_create("batch", MFD_CLOEXEC);
    if (fd == -1 || os_write_all(fd, batch, strlen(batch)) != 0) {
        return nft_run_cmd_from_buffer(k->nft, batch);
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (access(path, R_OK) != 0) {
        return nft_run_cmd_from_buffer(k->nft, batch);
    }
    return nft_run_cmd_from_filename(k->nft, path);
}

void kernel_from_memory(struct kernel *k)
{
    k->from_memory = true;
}

int kernel_run(struct kernel *k, const char *batch, struct err *err)
{
    if (run_as_file(k, batch) != 0) {
        const char *text = nft_ctx_get_error_buffer(k->nft);
        return explain(text != NULL ? text : "", err);
    }
    return 0;
}

int kernel_list(struct kernel *k, const char *table, struct buf *out, bool *ret_there,
                struct err *err)
{
    char command[100];
    snprintf(command, sizeof(command), "list table inet %s", table);
    if (nft_run_cmd_from_buffer(k->nft, command) != 0) {
        const char *text = nft_ctx_get_error_buffer(k->nft);
        if (text != NULL && strstr(text, "No such file or directory") != NULL) {
            *ret_there = false;
            return 0;
        }
        return explain(text != NULL ? text : "", err);
    }
    const char *listing = nft_ctx_get_output_buffer(k->nft);
    if (listing == NULL || !buf_append(out, listing, strlen(listing))) {
        return err_set(err, ERR_LIMIT, "the table %s is longer than %zu bytes", table, out->max);
    }
    *ret_there = true;
    return 0;
}
