/*
 * A program as users have them: OpenSSL, its configuration, two threads.
 *     storm encrypt FILE STOP   encrypt short messages, appending each ciphertext to FILE, until the file STOP appears;
 *                               says "ready" after the first one
 *     storm open FILE           decrypt every one of them
 * A record is the ciphertext's length (4 bytes, native) and the ciphertext; each message says its own number.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "one_message.h"

enum { THREADS = 2, MESSAGE = 48, ROOM = MESSAGE + 64 };

static EVP_CIPHER *cipher;
static FILE *file;
static const char *stop;
static pthread_mutex_t file_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int failures;
static atomic_ulong made;

static void complain(const char *what)
{
    fprintf(stderr, "storm %d: cannot %s: ", (int)getpid(), what);
    ERR_print_errors_fp(stderr);
    fprintf(stderr, "\n");
    atomic_fetch_add(&failures, 1);
}

static void keep(const unsigned char *sealed, int length)
{
    pthread_mutex_lock(&file_lock);
    if (fwrite(&length, sizeof(length), 1, file) != 1 || fwrite(sealed, (size_t)length, 1, file) != 1)
        complain("write");
    pthread_mutex_unlock(&file_lock);
}

static void *encrypt_until_stopped(void *context_argument)
{
    EVP_CIPHER_CTX *context = context_argument;
    unsigned char message[MESSAGE] = "storm", sealed[ROOM], opened[ROOM];
    while (access(stop, F_OK) != 0 && atomic_load(&failures) < 5) {
        unsigned long number = atomic_fetch_add(&made, 1);
        memcpy(message + 8, &number, sizeof(number));
        int length = one_message(context, cipher, 1, message, MESSAGE, sealed);
        if (length < 0) {
            complain("encrypt");
            continue;
        }
        keep(sealed, length);
        if (number % 16 == 0 && (one_message(context, cipher, 0, sealed, length, opened) != MESSAGE ||
                                 memcmp(opened, message, MESSAGE) != 0))
            complain("decrypt what was just made");
    }
    return NULL;
}

static int storm_encrypt(void)
{
    static const unsigned char first[MESSAGE] = "storm";
    unsigned char sealed[ROOM];
    pthread_t threads[THREADS];
    EVP_CIPHER_CTX *contexts[THREADS];
    for (int i = 0; i < THREADS; i++) {
        contexts[i] = EVP_CIPHER_CTX_new();
        if (!contexts[i])
            return 1;
    }
    if (one_message(contexts[0], cipher, 1, first, MESSAGE, sealed) < 0) {
        complain("encrypt for the first time");
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    for (int i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, encrypt_until_stopped, contexts[i]) != 0)
            return 1;
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        EVP_CIPHER_CTX_free(contexts[i]);
    }
    printf("%lu\n", atomic_load(&made));
    return 0;
}

static int storm_open(void)
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    unsigned char sealed[ROOM], opened[ROOM];
    unsigned long count = 0;
    int length;
    while (fread(&length, sizeof(length), 1, file) == 1) {
        if (length < 0 || length > ROOM || fread(sealed, (size_t)length, 1, file) != 1) {
            complain("read");
            break;
        }
        if (one_message(context, cipher, 0, sealed, length, opened) != MESSAGE || memcmp(opened, "storm", 5) != 0)
            complain("open");
        count++;
    }
    EVP_CIPHER_CTX_free(context);
    printf("%lu\n", count);
    return 0;
}

int main(int argc, char **argv)
{
    int encrypt = argc == 4 && strcmp(argv[1], "encrypt") == 0;
    if (!encrypt && !(argc == 3 && strcmp(argv[1], "open") == 0))
        return 2;
    stop = encrypt ? argv[3] : NULL;
    file = fopen(argv[2], encrypt ? "wb" : "rb");
    cipher = EVP_CIPHER_fetch(NULL, "ENVELOPE-AES-256-GCM", NULL);
    if (!file || !cipher) {
        complain("start");
        return 1;
    }
    int status = encrypt ? storm_encrypt() : storm_open();
    EVP_CIPHER_free(cipher);
    if (fclose(file) != 0)
        complain("close");
    return status != 0 || atomic_load(&failures) != 0;
}
