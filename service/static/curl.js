/** The command that asks for the same painting from a terminal. */

/** Give it; the key stays a variable of the reader's shell. */
export function curlCommand({ url, fileName, parameters, output, needsKey }) {
  const fields = Object.entries(parameters).map(([name, value]) => `-F ${quote(`${name}=${value}`)}`);
  return [
    "curl",
    ...(needsKey ? ['-H "Authorization: Bearer $ATELIER_KEY"'] : []),
    `-F ${quote(`image=@${inForm(fileName)}`)}`,
    ...fields,
    `-o ${quote(output)}`,
    quote(url),
  ].join(" ");
}

/** A file name as curl's -F reads it, where commas and semicolons would end it. */
function inForm(fileName) {
  if (!/[,;"\\]/.test(fileName)) {
    return fileName;
  }
  return `"${fileName.replace(/["\\]/g, "\\$&")}"`;
}

/** A word as a POSIX shell reads it. */
function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
