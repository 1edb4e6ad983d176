/*
 * fork in a program that uses the provider: fork_scenarios before|after|busy
 *   before: fork first, use after, in both
 *   after:  use, then fork, use in both
 *   busy:   fork again and again while another thread unwraps keys in the token
 * Each child encrypts and decrypts, and ends; nothing may hang.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "one_message.h"

enum { MESSAGE = 40, ROOM = MESSAGE + 64, BUSY_FORKS = 60, CHILD_SECONDS = 30 };

static EVP_CIPHER
    *cipher; /* fetched at first use; a program that fetches while it forks can hang in libcrypto itself */
static atomic_int stop;
static atomic_int failures;

/* The nonce of what was made goes to nonce, so that two processes can be compared. */
static int use(unsigned char nonce[12])
{
    static const unsigned char message[MESSAGE] = "fork";
    unsigned char sealed[ROOM], opened[ROOM];
    if (!cipher)
        cipher = EVP_CIPHER_fetch(NULL, "ENVELOPE-AES-256-GCM", NULL);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int length = cipher && context ? one_message(context, cipher, 1, message, MESSAGE, sealed) : -1;
    int good = length == MESSAGE + 32 && one_message(context, cipher, 0, sealed, length, opened) == MESSAGE &&
               memcmp(opened, message, MESSAGE) == 0;
    EVP_CIPHER_CTX_free(context);
    if (!good) {
        fprintf(stderr, "process %d: ", (int)getpid());
        ERR_print_errors_fp(stderr);
        return 0;
    }
    memcpy(nonce, sealed + 4, 12);
    return 1;
}

/* Fork; the child uses the provider, and hands its nonce up. */
static int fork_and_use(unsigned char nonce[12])
{
    int ends[2];
    if (pipe(ends) != 0)
        return 0;
    pid_t child = fork();
    if (child < 0)
        return 0;
    if (child == 0) {
        alarm(CHILD_SECONDS);
        unsigned char mine[12];
        int good = use(mine) && write(ends[1], mine, sizeof(mine)) == (ssize_t)sizeof(mine);
        _exit(good ? 0 : 1);
    }
    close(ends[1]);
    ssize_t got = read(ends[0], nonce, 12);
    close(ends[0]);
    int status;
    if (waitpid(child, &status, 0) != child)
        return 0;
    if (WIFSIGNALED(status))
        fprintf(stderr, "a child ended by signal %d\n", WTERMSIG(status));
    return got == 12 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int in_both(int first)
{
    unsigned char mine[12], childs[12];
    if (first && !use(mine))
        return 0;
    return fork_and_use(childs) && use(mine) && memcmp(mine, childs, sizeof(mine)) != 0;
}

static void *keep_the_token_busy(void *unused)
{
    (void)unused;
    unsigned char nonce[12];
    while (!atomic_load(&stop) && atomic_load(&failures) < 5)
        if (!use(nonce))
            atomic_fetch_add(&failures, 1);
    return NULL;
}

static int while_busy(void)
{
    pthread_t thread;
    unsigned char nonce[12];
    /* OpenSSL's configuration is loaded before the second thread starts: libcrypto does not survive a fork inside that.
     */
    if (!use(nonce) || pthread_create(&thread, NULL, keep_the_token_busy, NULL) != 0)
        return 0;
    int good = 1;
    for (int i = 0; good && i < BUSY_FORKS; i++)
        good = fork_and_use(nonce);
    atomic_store(&stop, 1);
    pthread_join(thread, NULL);
    return good && atomic_load(&failures) == 0;
}

int main(int argc, char **argv)
{
    const char *when = argc == 2 ? argv[1] : "";
    int good = strcmp(when, "before") == 0  ? in_both(0)
               : strcmp(when, "after") == 0 ? in_both(1)
               : strcmp(when, "busy") == 0  ? while_busy()
                                            : -1;
    EVP_CIPHER_free(cipher);
    return good < 0 ? 2 : !good;
}
