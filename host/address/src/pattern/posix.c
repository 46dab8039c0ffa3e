/* The C library's answers, for a test. Reads lines of
 *     FLAGS PATTERN TEXT TEXT ...
 * where FLAGS is b (basic) or e (extended, without case) and all others are in hexadecimal behind an x. Writes a line for each: E when
 * the pattern is refused, else 0 or 1 for each text. */
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *decoded(char *word)
{
    size_t length = strlen(word + 1) / 2;
    for (size_t at = 0; at < length; at++) {
        char digits[3] = { word[1 + 2 * at], word[2 + 2 * at], 0 };
        word[at] = (char)strtol(digits, NULL, 16);
    }
    word[length] = 0;
    return word;
}

int main(void)
{
    char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, stdin) > 0) {
        char *flags = strtok(line, " \n");
        char *pattern = decoded(strtok(NULL, " \n"));
        regex_t regex;
        int options = *flags == 'e' ? REG_EXTENDED | REG_ICASE : 0;
        if (regcomp(&regex, pattern, options | REG_NOSUB)) {
            puts("E");
            continue;
        }
        for (char *text; (text = strtok(NULL, " \n"));)
            putchar(regexec(&regex, decoded(text), 0, NULL, 0) ? '0' : '1');
        putchar('\n');
        regfree(&regex);
    }
    return 0;
}
