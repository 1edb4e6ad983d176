/*
 * AWS Signature Version 4 as http.c has libcurl make it, recomputed here from what arrived on the wire by the published
 * recipe. libcurl dates the request itself, so the published fixed-date vectors serve to check the recipe, and the
 * recipe to check libcurl.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include "base/clock.h"
#include "base/libctx.h"
#include "base/text.h"
#include "http.h"

enum { WIRE_MAX = 65536, DIGEST = 32, HEX = 2 * DIGEST + 1, LINES_MAX = 32 };

/* --- the recipe --- */

static void hash_hex(const char *bytes, size_t length, char hex[HEX])
{
    uint8_t digest[DIGEST];
    assert_true(EVP_Digest(bytes, length, digest, NULL, EVP_sha256(), NULL));
    text_hex(digest, DIGEST, hex);
}

static void hmac(const uint8_t *key, size_t key_length, const char *text, uint8_t digest[DIGEST])
{
    assert_non_null(HMAC(EVP_sha256(), key, (int)key_length, (const uint8_t *)text, strlen(text), digest, NULL));
}

static void sign(const char *secret, const char *date, const char *region, const char *service, const char *text,
                 char hex[HEX])
{
    char first[256];
    uint8_t key[DIGEST], next[DIGEST];
    char day[9];
    snprintf(day, sizeof day, "%.8s", date);
    snprintf(first, sizeof first, "AWS4%s", secret);
    hmac((uint8_t *)first, strlen(first), day, key);
    hmac(key, DIGEST, region, next);
    hmac(next, DIGEST, service, key);
    hmac(key, DIGEST, "aws4_request", next);
    hmac(next, DIGEST, text, key);
    text_hex(key, DIGEST, hex);
}

/* String to sign from a canonical request. */
static void to_sign(const char *canonical, const char *date, const char *region, const char *service, char *to,
                    size_t size)
{
    char hex[HEX];
    hash_hex(canonical, strlen(canonical), hex);
    snprintf(to, size, "AWS4-HMAC-SHA256\n%s\n%.8s/%s/%s/aws4_request\n%s", date, date, region, service, hex);
}

/* "get-vanilla", "post-vanilla" and "post-x-www-form-urlencoded" of AWS's published suite. */
static void the_recipe_gives_the_published_signatures(void **state)
{
    (void)state;
    static const struct {
        const char *canonical, *signature;
    } rows[] = {{"GET\n/\n\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\nhost;x-amz-date\n"
                 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                 "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
                {"POST\n/\n\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\nhost;x-amz-date\n"
                 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                 "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
                {"POST\n/\n\ncontent-type:application/x-www-form-urlencoded\nhost:example.amazonaws.com\n"
                 "x-amz-date:20150830T123600Z\n\ncontent-type;host;x-amz-date\n"
                 "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
                 "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char text[512], hex[HEX];
        to_sign(rows[i].canonical, "20150830T123600Z", "us-east-1", "service", text, sizeof text);
        sign("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830T123600Z", "us-east-1", "service", text, hex);
        assert_string_equal(hex, rows[i].signature);
    }
}

/* --- a server that keeps what it got --- */

struct server {
    int listener;
    int port;
    pthread_t thread;
    char wire[WIRE_MAX];
};

static void *serve(void *context)
{
    struct server *server = context;
    int peer = accept(server->listener, NULL, NULL);
    size_t used = 0;
    for (;;) {
        ssize_t got = recv(peer, server->wire + used, WIRE_MAX - 1 - used, 0);
        if (got <= 0)
            break;
        used += (size_t)got;
        server->wire[used] = '\0';
        const char *end = strstr(server->wire, "\r\n\r\n"), *length = strcasestr(server->wire, "content-length:");
        size_t body = length && end && length < end ? strtoul(length + 15, NULL, 10) : 0;
        if (end && used >= (size_t)(end + 4 - server->wire) + body)
            break;
    }
    static const char reply[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    (void)!write(peer, reply, sizeof reply - 1);
    close(peer);
    return NULL;
}

static void server_start(struct server *server)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    server->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server->listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(server->listener, 1), 0);
    assert_int_equal(getsockname(server->listener, (struct sockaddr *)&address, &length), 0);
    server->port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

/* --- from the wire back to a signature --- */

static const char *field(const char *wire, const char *name, char *value, size_t size)
{
    char pattern[64];
    snprintf(pattern, sizeof pattern, "\r\n%s:", name);
    const char *at = strcasestr(wire, pattern);
    assert_non_null(at);
    at += strlen(pattern);
    at += strspn(at, " ");
    size_t length = strcspn(at, "\r");
    assert_true(length < size);
    memcpy(value, at, length);
    value[length] = '\0';
    return value;
}

static void canonical_request(const char *wire, const char *signed_headers, char *to, size_t size)
{
    char names[512], value[2048], hex[HEX], *rest = NULL;
    const char *body = strstr(wire, "\r\n\r\n") + 4;
    size_t used = (size_t)snprintf(to, size, "%.*s\n/\n\n", (int)strcspn(wire, " "), wire);
    snprintf(names, sizeof names, "%s", signed_headers);
    for (char *name = strtok_r(names, ";", &rest); name; name = strtok_r(NULL, ";", &rest))
        used += (size_t)snprintf(to + used, size - used, "%s:%s\n", name, field(wire, name, value, sizeof value));
    hash_hex(body, strlen(body), hex);
    snprintf(to + used, size - used, "\n%s\n%s", signed_headers, hex);
}

static void check_wire(const char *wire, const char *must_be_signed)
{
    char authorization[2048], date[64], scope[256], canonical[8192], text[512], hex[HEX];
    field(wire, "Authorization", authorization, sizeof authorization);
    field(wire, "X-Amz-Date", date, sizeof date);
    snprintf(scope, sizeof scope, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/%.8s/eu-west-1/kms/aws4_request", date);
    assert_memory_equal(authorization, scope, strlen(scope));
    char *headers = strstr(authorization, "SignedHeaders=") + 14;
    char *signature = strstr(authorization, "Signature=") + 10;
    headers[strcspn(headers, ",")] = '\0';
    for (const char *name = must_be_signed; *name; name += strlen(name) + 1)
        assert_non_null(strstr(headers, name));
    canonical_request(wire, headers, canonical, sizeof canonical);
    to_sign(canonical, date, "eu-west-1", "kms", text, sizeof text);
    sign("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", date, "eu-west-1", "kms", text, hex);
    assert_string_equal(signature, hex);
}

static void post(const char *token, const char *body, char *wire)
{
    struct server *server = calloc(1, sizeof *server);
    struct http_request request = {
        .method = HTTP_POST, .direct = true, .sign_region = "eu-west-1", .sign_service = "kms"};
    struct http_reply reply = {0};
    struct credentials *signer = credentials_new("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", token, 0);
    assert_non_null(server);
    server_start(server);
    request.signer = signer;
    assert_int_equal(http_request_url(&request, "http://127.0.0.1:%d/", server->port), ENVELOPE_OK);
    http_request_header(&request, "Content-Type", "application/x-amz-json-1.1");
    http_request_header(&request, "X-Amz-Target", "TrentService.Decrypt");
    if (token)
        http_request_header(&request, "X-Amz-Security-Token", token);
    buffer_append_text(&request.body, body);
    assert_int_equal(http_perform(&request, &(struct http_route){0}, clock_monotonic() + 10 * CLOCK_SECOND, &reply),
                     ENVELOPE_OK);
    assert_int_equal(reply.status, 200);
    pthread_join(server->thread, NULL);
    close(server->listener);
    memcpy(wire, server->wire, WIRE_MAX);
    credentials_unref(signer);
    http_request_clear(&request);
    http_reply_clear(&reply);
    free(server);
}

static void a_request_on_the_wire_carries_the_right_signature(void **state)
{
    char *wire = malloc(WIRE_MAX);
    (void)state;
    assert_non_null(wire);
    post(NULL, "{\"KeyId\":\"x\"}", wire);
    check_wire(wire, "host\0x-amz-date\0x-amz-target\0content-type\0");
    free(wire);
}

static void a_session_token_is_sent_and_signed(void **state)
{
    char *wire = malloc(WIRE_MAX);
    (void)state;
    assert_non_null(wire);
    post("IQoJb3JpZ2luX2VjEJr//////////wEaCWV1LXdlc3QtMSJHMEUCIQ==", "{}", wire);
    check_wire(wire, "host\0x-amz-date\0x-amz-target\0x-amz-security-token\0");
    free(wire);
}

static void a_body_of_many_kilobytes_is_signed_whole(void **state)
{
    char *wire = malloc(WIRE_MAX), *body = malloc(20001);
    (void)state;
    assert_non_null(wire);
    assert_non_null(body);
    memset(body, 'x', 20000);
    body[20000] = '\0';
    post(NULL, body, wire);
    check_wire(wire, "host\0");
    free(body);
    free(wire);
}

static void headers_cannot_be_smuggled_in(void **state)
{
    struct http_request request = {0};
    (void)state;
    assert_int_equal(http_request_header(&request, "X-A", "b\r\nX-C: d"), ENVELOPE_E_ARGUMENT);
    assert_int_equal(http_request_url(&request, "http://%s/", "a b"), ENVELOPE_E_ARGUMENT);
    assert_int_equal(http_request_url(&request, "http://%s/", "a\nb"), ENVELOPE_E_ARGUMENT);
    http_request_clear(&request);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_recipe_gives_the_published_signatures),
        cmocka_unit_test(a_request_on_the_wire_carries_the_right_signature),
        cmocka_unit_test(a_session_token_is_sent_and_signed),
        cmocka_unit_test(a_body_of_many_kilobytes_is_signed_whole),
        cmocka_unit_test(headers_cannot_be_smuggled_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
