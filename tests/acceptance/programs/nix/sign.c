/* Has a Nix that was built without the signing of S3 requests sign them, as one that was built with it does.
 *
 * Such a Nix asks libcurl to sign: for a request to s3:// it sets the option AWS_SIGV4, user name and password on the request's handle, and no
 * more. This library, loaded before libcurl, sets the same three when Nix names a URL below SIGN_BELOW. All else stays Nix's and libcurl's own.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Numbers of curl.h, which stay the same for ever; its headers are not needed. */
enum { OPT_URL = 10002, OPT_USERNAME = 10173, OPT_PASSWORD = 10174, OPT_AWS_SIGV4 = 10305 };

typedef int setopt(void *handle, int option, ...);

int curl_easy_setopt(void *handle, int option, ...)
{
    static setopt *real;
    if (!real) real = (setopt *)dlsym(RTLD_NEXT, "curl_easy_setopt");
    /* Every argument is a number or an address in a register of 64 bits. */
    va_list arguments;
    va_start(arguments, option);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    const char *below = getenv("SIGN_BELOW");
    if (option == OPT_URL && argument && below && !strncmp(argument, below, strlen(below))) {
        int failed = real(handle, OPT_AWS_SIGV4, getenv("SIGN_PROVIDER"));
        if (!failed) failed = real(handle, OPT_USERNAME, getenv("AWS_ACCESS_KEY_ID"));
        if (!failed) failed = real(handle, OPT_PASSWORD, getenv("AWS_SECRET_ACCESS_KEY"));
        if (failed) return failed;
    }
    return real(handle, option, argument);
}
