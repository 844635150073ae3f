//! What a command reads: a file, or standard input where `-` stands for one. Invariant: nobody holds more of it than a
//! bound; a file that may be larger is taken in parts of whole lines.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use super::{Exit, complain};

/// The most that is held of one input: four of the largest answers of a provider.
pub const MOST: u64 = 256 << 20;

fn is_standard_input(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// What to call it.
pub fn name(file: &Path) -> Cow<'_, str> {
    if is_standard_input(file) { "standard input".into() } else { file.to_string_lossy() }
}

/// Opens it, and says how long it is, where that can be known.
///
/// # Errors
/// Where it cannot be opened.
pub fn open(file: &Path) -> io::Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if is_standard_input(file) {
        return Ok((Box::new(BufReader::new(io::stdin())), None));
    }
    let opened = File::open(file)?;
    let length = opened.metadata().ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
    Ok((Box::new(BufReader::new(opened)), length))
}

/// All of it.
///
/// # Errors
/// Where it cannot be read; [`FileTooLarge`](io::ErrorKind::FileTooLarge) where it is more than a bound.
pub fn whole(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(file)?.0.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}

/// All of it, up to [`MOST`]; else whoever typed its name is told why not, and this is the exit code.
pub fn whole_or_exit(file: &Path) -> Result<Vec<u8>, Exit> {
    whole(file, MOST).map_err(|error| unreadable(file, &error))
}

/// Tells why there is no input.
pub fn unreadable(file: &Path, error: &io::Error) -> Exit {
    complain(&format!("{} cannot be read: {error}", name(file)));
    Exit::NoInput
}

/// The next whole lines, about so many bytes of them; none at the end.
///
/// # Errors
/// Where it cannot be read.
pub fn part(input: &mut impl BufRead, about: u64) -> io::Result<Option<Vec<u8>>> {
    let mut part = Vec::new();
    input.by_ref().take(about).read_to_end(&mut part)?;
    if part.len() as u64 == about && !part.ends_with(b"\n") {
        // One line; what is no line at all is no reason to hold all of a file.
        input.take(MOST).read_until(b'\n', &mut part)?;
    }
    Ok((!part.is_empty()).then_some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, about: u64, expected: &[&str]) {
        let mut input = text.as_bytes();
        let parts = std::iter::from_fn(|| part(&mut input, about).unwrap());
        let parts: Vec<String> = parts.map(|part| String::from_utf8(part).unwrap()).collect();
        assert_eq!(parts, expected);
    }

    #[test]
    fn parts_are_whole_lines() {
        check("", 4, &[]);
        check("a\nb", 4, &["a\nb"]);
        check("abc\ndef\ng\n", 4, &["abc\n", "def\n", "g\n"]);
        check("abc\ndef\ng\n", 6, &["abc\ndef\n", "g\n"]);
        check("a line that is longer\nb", 4, &["a line that is longer\n", "b"]);
    }

    #[test]
    fn more_than_the_bound_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "12345").unwrap();
        assert_eq!(whole(file.path(), 5).unwrap(), b"12345");
        assert_eq!(whole(file.path(), 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
