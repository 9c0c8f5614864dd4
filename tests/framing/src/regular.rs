//! Whether an answer is of the grammar, by the letter of RFC 9112 and without thought of speed: a judge that
//! neither of the two parsers has written.

/// Whether all heads up to the final one are regular, and state framing and persistence in their plain forms.
pub fn is_regular(mut answer: &[u8]) -> bool {
    loop {
        let Some((status, rest)) = head(answer) else { return false };
        if status >= 200 {
            return true;
        }
        answer = rest;
    }
}

/// Whether a line of a head ends in LF alone, which some clients take and some do not (section 2.2).
pub fn has_bare_lf(answer: &[u8]) -> bool {
    let mut is_interim = answer.starts_with(b"HTTP/1.1 1");
    let mut lines = answer.split_inclusive(|byte| *byte == b'\n').peekable();
    while let Some(line) = lines.next() {
        if !line.ends_with(b"\r\n") {
            return true;
        }
        if line == b"\r\n" {
            if !is_interim {
                return false;
            }
            is_interim = lines.peek().is_some_and(|line| line.starts_with(b"HTTP/1.1 1"));
        }
    }
    false
}

/// Whether content in chunks is nothing but sizes, data, and trailer fields that do not frame (section 7.1).
pub fn has_plain_chunks(message: &[u8]) -> bool {
    let Some(mut rest) = head_end(message).map(|end| &message[end..]) else { return false };
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return false };
        let size = std::str::from_utf8(&rest[..end]).ok().filter(|size| !size.starts_with('+'));
        let Some(size) = size.and_then(|size| usize::from_str_radix(size, 16).ok()) else {
            return false;
        };
        rest = &rest[end + 2..];
        if size == 0 {
            let frames =
                |word: &[u8]| rest.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
            return !frames(b"\ncontent-length")
                && !frames(b"transfer-encoding")
                && !rest.starts_with(b"Content-Length");
        }
        let Some((b"\r\n", behind)) = rest.get(size..).and_then(|rest| rest.split_at_checked(2))
        else {
            return false;
        };
        rest = behind;
    }
}

/// Whether `name` stands behind the head, as in a trailer section.
pub fn is_behind_head(message: &[u8], name: &[u8]) -> bool {
    let end = head_end(message).unwrap_or(message.len());
    message[end..].windows(name.len()).any(|word| word.eq_ignore_ascii_case(name))
}

/// The offset behind the first empty line.
fn head_end(message: &[u8]) -> Option<usize> {
    let mut ends =
        message.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    ends.find_map(|end| match message.get(end..)? {
        [b'\n', ..] => Some(end + 1),
        [b'\r', b'\n', ..] => Some(end + 2),
        _ => None,
    })
}

fn head(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut rest = answer;
    let mut line = || {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let line = &rest[..end];
        rest = &rest[end + 2..];
        Some(line)
    };
    let status = status(line()?)?;
    let (mut lengths, mut codings) = (0, 0);
    loop {
        let line = line()?;
        if line.is_empty() {
            break;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let is_token =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
        if name.is_empty() || !name.iter().all(is_token) || value.iter().any(u8::is_ascii_control) {
            return None;
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            lengths += 1;
            let is_number =
                !value.is_empty() && value.iter().all(u8::is_ascii_digit) && value.len() < 19;
            is_number.then_some(())?;
        }
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            codings += 1;
            value.eq_ignore_ascii_case(b"chunked").then_some(())?;
        }
    }
    (lengths + codings < 2).then_some((status, rest))
}

fn status(line: &[u8]) -> Option<u16> {
    let (status, reason) = line.strip_prefix(b"HTTP/1.1 ")?.split_at_checked(3)?;
    let is_reason = reason.starts_with(b" ") && !reason.iter().any(u8::is_ascii_control);
    let is_status = status.iter().all(u8::is_ascii_digit) && (b'1'..=b'5').contains(&status[0]);
    let number = std::str::from_utf8(status).ok()?.parse().ok()?;
    (is_reason && is_status).then_some(number)
}
