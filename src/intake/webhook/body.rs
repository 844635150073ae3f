//! A request's body within its bounds: 2 MiB, as sent and as undone, counted as it streams; 10 seconds; and a share of the
//! memory that all bodies being read may take. Invariant: never more than a bound and one frame is held, whatever a
//! sender claims or compresses.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use bytes::{Bytes, BytesMut};
use flate2::write::MultiGzDecoder;
use foldhash::HashMap;
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::deliver::memory::take_both;
use crate::event::AccountId;

/// A body, as sent and as undone.
const BYTES: usize = 2 << 20;
/// From the end of the head to the end of the body.
const TIME: Duration = Duration::from_secs(10);
/// Memory is given out in pieces of this size.
const PIECE: usize = 16 << 10;
/// The pieces of all bodies being read, or waiting for their answer: 128 MiB.
const PIECES: usize = (128 << 20) / PIECE;
/// An account's share: 32 MiB.
const SHARE: usize = (32 << 20) / PIECE;
/// When a sender that found no room should come again.
const COME_AGAIN: Duration = Duration::from_secs(5);

/// Why a body was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Over 2 MiB, as sent or as undone.
    #[error("the body is larger than 2 MiB")]
    TooLarge,
    /// It took more than 10 seconds.
    #[error("the body did not come within 10 seconds")]
    TooSlow,
    /// Neither `identity` nor `gzip`.
    #[error("the body's encoding is neither gzip nor identity")]
    Encoding,
    /// The sender broke off, or broke the protocol.
    #[error("the body broke off")]
    Broken,
    /// Too much is being read.
    #[error("too much is being received at once")]
    NoRoom {
        /// When to come again.
        retry_after: Duration,
    },
}

/// The memory that bodies may take.
#[derive(Debug)]
pub(super) struct Budget {
    all: Arc<Semaphore>,
    shares: HashMap<AccountId, Arc<Semaphore>>,
}

impl Budget {
    pub(super) fn new(accounts: &[AccountId]) -> Self {
        let shares = accounts.iter().map(|id| (id.clone(), Arc::new(Semaphore::new(SHARE)))).collect();
        Self { all: Arc::new(Semaphore::new(PIECES)), shares }
    }

    /// The same memory, for these accounts.
    pub(super) fn of_accounts(&self, accounts: &[AccountId]) -> Self {
        let share =
            |id: &AccountId| self.shares.get(id).cloned().unwrap_or_else(|| Arc::new(Semaphore::new(SHARE)));
        let shares = accounts.iter().map(|id| (id.clone(), share(id))).collect();
        Self { all: Arc::clone(&self.all), shares }
    }

    fn reserve(&self, account: &AccountId) -> Reserved {
        let share = self.shares.get(account).unwrap_or(&self.all);
        Reserved::of(share, &self.all)
    }
}

/// A body's memory, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    share: Arc<Semaphore>,
    all: Arc<Semaphore>,
    permits: Vec<OwnedSemaphorePermit>,
    bytes: usize,
}

impl Reserved {
    /// Nothing yet.
    fn of(share: &Arc<Semaphore>, all: &Arc<Semaphore>) -> Self {
        Self { share: Arc::clone(share), all: Arc::clone(all), permits: Vec::new(), bytes: 0 }
    }

    /// Makes room for `bytes` in all.
    async fn cover(&mut self, bytes: usize) -> Result<(), Unread> {
        let missing = bytes.saturating_sub(self.bytes).div_ceil(PIECE);
        let Ok(pieces) = u32::try_from(missing) else { return Err(Unread::TooLarge) };
        if pieces == 0 {
            return Ok(());
        }
        let Some((share, all)) = take_both(&self.share, &self.all, pieces).await else {
            return Err(Unread::NoRoom { retry_after: COME_AGAIN });
        };
        self.permits.extend([share, all]);
        self.bytes += missing * PIECE;
        Ok(())
    }
}

/// Whether a body was what its headers said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Plain, or gzip that was undone.
    True,
    /// Said to be gzip, and not, or broken, or cut off: it is here as it was sent.
    NotGzip,
}

/// What the headers say of a body: they need not be kept while it comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    encoding: Encoding,
    length: Option<u64>,
}

impl Said {
    /// Reads it.
    pub(super) fn by(headers: &HeaderMap) -> Result<Self, Unread> {
        Ok(Self { encoding: Encoding::of(headers)?, length: announced(headers) })
    }
}

/// Reads a body, and undoes its encoding. Bytes that claim to be `gzip` and are not come back as they were sent: they
/// are for `accept` to judge, and to keep.
pub(super) async fn read(
    budget: &Budget,
    account: &AccountId,
    Said { encoding, length }: Said,
    body: Body,
) -> Result<(Bytes, Claim, Reserved), Unread> {
    if length.is_some_and(|bytes| bytes > BYTES as u64) {
        return Err(Unread::TooLarge);
    }
    let mut reserved = budget.reserve(account);
    let gathered = timeout(TIME, gather(body, encoding, &mut reserved)).await;
    let (read, claim) = gathered.unwrap_or(Err(Unread::TooSlow))?;
    Ok((read, claim, reserved))
}

async fn gather(
    mut body: Body,
    encoding: Encoding,
    reserved: &mut Reserved,
) -> Result<(Bytes, Claim), Unread> {
    let mut sent = BytesMut::new();
    let mut gzip = match encoding {
        Encoding::Identity => None,
        Encoding::Gzip => Some(Undoing::default()),
    };
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        if sent.len() + data.len() > BYTES {
            return Err(Unread::TooLarge);
        }
        sent.extend_from_slice(&data);
        // There is room for what may come of it before it does, until what came of it has its own.
        let _room = match &mut gzip {
            Some(undoing) => {
                let mut room = Reserved::of(&reserved.share, &reserved.all);
                room.cover(data.len().saturating_mul(EXPANDS).min(BYTES - undoing.len())).await?;
                undoing.take(&data)?;
                Some(room)
            }
            None => None,
        };
        reserved.cover(sent.len() + gzip.as_ref().map_or(0, Undoing::len)).await?;
    }
    Ok(match gzip.map(Undoing::finish).transpose()? {
        None => (sent.freeze(), Claim::True),
        Some(Some(undone)) => (undone, Claim::True),
        Some(None) => (sent.freeze(), Claim::NotGzip),
    })
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Result<Self, Unread> {
        let mut named = Self::Identity;
        for value in headers.get_all(CONTENT_ENCODING) {
            for coding in value.to_str().map_err(|_| Unread::Encoding)?.split(',') {
                named = match (named, coding.trim().to_ascii_lowercase().as_str()) {
                    (named, "" | "identity") => named,
                    (Self::Identity, "gzip" | "x-gzip") => Self::Gzip,
                    _ => return Err(Unread::Encoding),
                };
            }
        }
        Ok(named)
    }
}

/// The most bytes that a byte of gzip becomes.
const EXPANDS: usize = 1_032;

/// Undoes gzip as it streams.
struct Undoing {
    decoder: MultiGzDecoder<Bounded>,
    corrupt: bool,
}

impl Default for Undoing {
    fn default() -> Self {
        Self { decoder: MultiGzDecoder::new(Bounded::default()), corrupt: false }
    }
}

impl Undoing {
    fn take(&mut self, data: &[u8]) -> Result<(), Unread> {
        if !self.corrupt {
            self.corrupt = self.decoder.write_all(data).is_err();
        }
        if self.decoder.get_ref().full { Err(Unread::TooLarge) } else { Ok(()) }
    }

    fn len(&self) -> usize {
        self.decoder.get_ref().bytes.len()
    }

    /// None where it was not gzip, or broke off.
    fn finish(mut self) -> Result<Option<Bytes>, Unread> {
        let ended = !self.corrupt && self.decoder.try_finish().is_ok();
        let undone = self.decoder.get_mut();
        if undone.full {
            return Err(Unread::TooLarge);
        }
        Ok(ended.then(|| std::mem::take(&mut undone.bytes).into()))
    }
}

#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl Write for Bounded {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + data.len() > BYTES {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    async fn get(encoding: &'static str, body: Vec<u8>) -> Result<Bytes, Unread> {
        claimed(encoding, body).await.map(|(bytes, _)| bytes)
    }

    async fn claimed(encoding: &'static str, body: Vec<u8>) -> Result<(Bytes, Claim), Unread> {
        let acme = AccountId::new("acme");
        let budget = Budget::new(std::slice::from_ref(&acme));
        let said = Said::by(&headers(&[("content-encoding", encoding)]))?;
        read(&budget, &acme, said, Body::from(body)).await.map(|(bytes, claim, _)| (bytes, claim))
    }

    #[test]
    fn an_encoding_is_identity_or_one_gzip() {
        let check = |pairs: &[(&'static str, &'static str)], expected| {
            assert_eq!(Encoding::of(&headers(pairs)), expected, "{pairs:?}");
        };
        check(&[], Ok(Encoding::Identity));
        check(&[("content-encoding", "identity")], Ok(Encoding::Identity));
        check(&[("content-encoding", "GZip")], Ok(Encoding::Gzip));
        check(&[("content-encoding", "x-gzip, identity")], Ok(Encoding::Gzip));
        check(&[("content-encoding", "gzip, gzip")], Err(Unread::Encoding));
        check(&[("content-encoding", "deflate")], Err(Unread::Encoding));
        check(&[("content-encoding", "br")], Err(Unread::Encoding));
    }

    #[tokio::test]
    async fn a_body_may_have_two_mebibytes_and_no_byte_more() {
        assert_eq!(get("identity", vec![b' '; BYTES]).await.map(|b| b.len()), Ok(BYTES));
        assert_eq!(get("identity", vec![b' '; BYTES + 1]).await, Err(Unread::TooLarge));
        assert_eq!(get("gzip", gzip(&vec![b' '; BYTES])).await.map(|b| b.len()), Ok(BYTES));
        assert_eq!(get("gzip", gzip(&vec![b' '; BYTES + 1])).await, Err(Unread::TooLarge));
    }

    #[tokio::test]
    async fn gzip_is_undone_also_in_several_members() {
        let mut two = gzip(b"[1,");
        two.extend(gzip(b"2]"));
        assert_eq!(get("gzip", two).await, Ok(Bytes::from_static(b"[1,2]")));
    }

    #[tokio::test]
    async fn what_only_claims_to_be_gzip_comes_back_as_it_was_sent() {
        let mut broken = gzip(b"[{}, {}, {}]");
        broken[12] ^= 0xff;
        let cut: Vec<u8> = gzip(b"[{}, {}, {}]").into_iter().take(20).collect();
        for sent in [b"[{}]".to_vec(), cut, broken] {
            assert_eq!(claimed("gzip", sent.clone()).await, Ok((Bytes::from(sent), Claim::NotGzip)));
        }
        assert_eq!(get("gzip", Vec::new()).await, Ok(Bytes::new()));
        assert_eq!(claimed("gzip", gzip(b"[]")).await, Ok((Bytes::from_static(b"[]"), Claim::True)));
        assert_eq!(claimed("identity", b"[]".to_vec()).await, Ok((Bytes::from_static(b"[]"), Claim::True)));
    }

    #[tokio::test(start_paused = true)]
    async fn where_memory_is_spent_a_body_waits_and_is_refused() {
        let acme = AccountId::new("acme");
        let other = AccountId::new("other");
        let budget = Budget::new(&[acme.clone(), other.clone()]);
        let none = Said::by(&HeaderMap::new()).unwrap();
        let read_one = |account| read(&budget, account, none, Body::from(vec![b' '; BYTES]));
        let mut held = Vec::new();
        for _ in 0..SHARE / (BYTES / PIECE) {
            held.push(read_one(&acme).await.unwrap());
        }
        assert!(matches!(read_one(&acme).await, Err(Unread::NoRoom { .. })));
        assert!(read_one(&other).await.is_ok(), "one account's bodies took another's share");
        held.pop();
        assert!(read_one(&acme).await.is_ok());
        // A place for the few bytes that are sent is none for what becomes of them.
        let piece = read(&budget, &acme, none, Body::from(vec![b' '; 1])).await.unwrap();
        let zipped = Said::by(&headers(&[("content-encoding", "gzip")])).unwrap();
        let bomb = || read(&budget, &acme, zipped, Body::from(gzip(&vec![b' '; BYTES])));
        assert!(matches!(bomb().await, Err(Unread::NoRoom { .. })));
        drop((piece, held.pop()));
        assert!(bomb().await.is_ok());
    }
}
