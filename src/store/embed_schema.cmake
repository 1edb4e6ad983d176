# Turn the numbered migrations of one engine into a C source file, in order:
#   cmake -DOUTPUT=file.c -DTABLE=name -DDIRECTORY=schema/sqlite -P embed_schema.cmake
file(GLOB scripts LIST_DIRECTORIES false ${DIRECTORY}/[0-9][0-9][0-9][0-9]_*.sql)
list(SORT scripts)
if(NOT scripts)
  message(FATAL_ERROR "no migrations in ${DIRECTORY}")
endif()

set(rows "")
set(expected 1)
foreach(script IN LISTS scripts)
  get_filename_component(file ${script} NAME)
  string(SUBSTRING ${file} 0 4 digits)
  math(EXPR number "1${digits} - 10000")
  if(NOT number EQUAL expected)
    message(FATAL_ERROR "${file}: migrations are numbered without gaps, ${expected} is missing")
  endif()
  math(EXPR expected "${expected} + 1")

  file(READ ${script} sql)
  string(REPLACE "\\" "\\\\" sql "${sql}")
  string(REPLACE "\"" "\\\"" sql "${sql}")
  string(REPLACE "\n" "\\n\"\n     \"" sql "${sql}")
  string(APPEND rows "    {${number}, \"${file}\",\n     \"${sql}\"},\n")
endforeach()

file(WRITE ${OUTPUT} "/* Made from ${TABLE}'s schema by embed_schema.cmake; edit the .sql files. */
#include \"store/sqlite.h\"

const struct store_migration ${TABLE}[] = {
${rows}};
const size_t ${TABLE}_count = sizeof ${TABLE} / sizeof ${TABLE}[0];
")
