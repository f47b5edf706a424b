/*
 * ipc: fixed-size messages between our own processes over SOCK_SEQPACKET socket pairs, with at most
 * one descriptor attached. A message is one struct of a protocol header, sent and received whole.
 *
 * The receiver trusts nothing: a wrong size, an unknown type or an unexpected descriptor is
 * IPC_BAD, and the caller ends the asker. Messages never hold pointers; a text in them is a length
 * and an array, and whoever receives it checks the length. Thread: any, one a socket.
 */
#ifndef POSTERN_IPC_H
#define POSTERN_IPC_H

#include <postern/err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ipc_outcome {
    IPC_OK,
    IPC_AGAIN,  /* nothing there, or the peer's queue is full */
    IPC_CLOSED, /* the peer is gone */
    IPC_BAD,    /* the message broke the protocol, or the socket failed */
};

/* Both ends close-on-exec, non-blocking. */
int ipc_pair(int ret_fds[2], struct err *err);
/* Sends size bytes as one message, with fd_to_pass (borrowed) unless it is -1. */
enum ipc_outcome ipc_send(int fd, const void *msg, size_t size, int fd_to_pass)
    __attribute__((warn_unused_result));
/* Receives one message of at most `size` bytes: *ret_len its length, *ret_passed the descriptor
 * (close-on-exec, the caller's) or -1. Longer messages, and more than one descriptor, are IPC_BAD.
 */
enum ipc_outcome ipc_recv(int fd, void *msg, size_t size, size_t *ret_len, int *ret_passed)
    __attribute__((warn_unused_result));

#endif
