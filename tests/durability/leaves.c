/* Leaves a handler to be run at exit, as OpenSSL does: it makes the file that FLEETBUS_TEST_LEFT names. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static void at_exit(void) {
  const char *path = getenv("FLEETBUS_TEST_LEFT");
  if (path) close(open(path, O_CREAT | O_WRONLY, 0600));
}

__attribute__((constructor)) static void loaded(void) { atexit(at_exit); }
