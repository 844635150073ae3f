//! The frame of Confluent's schema registry: a zero, the schema's id, which message of its file it is, then the event. Pure.

use bytes::{BufMut as _, Bytes, BytesMut};
use prost::encoding::{encode_varint, encoded_len_varint};

const MAGIC: u8 = 0;
/// Magic byte, and the id.
const HEAD: usize = 5;

/// What stands before each event of a topic. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// That of the schema `id`, whose file has the event's message at `index`, counted from 0.
    #[must_use]
    pub fn new(id: u32, index: usize) -> Self {
        // A path of one step: its length and each step are zigzag varints; the path [0] is written as nothing but a zero.
        let zigzag = |number: usize| (number as u64) << 1;
        let mut head = BytesMut::with_capacity(HEAD + 1 + encoded_len_varint(zigzag(index)));
        head.put_u8(MAGIC);
        head.put_u32(id);
        if index == 0 {
            head.put_u8(0);
        } else {
            encode_varint(zigzag(1), &mut head);
            encode_varint(zigzag(index), &mut head);
        }
        Self(head.freeze())
    }

    /// The event in its frame.
    #[must_use]
    pub fn around(&self, event: &[u8]) -> Bytes {
        let mut framed = BytesMut::with_capacity(self.0.len() + event.len());
        framed.extend_from_slice(&self.0);
        framed.extend_from_slice(event);
        framed.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_confluents() {
        assert_eq!(&*Frame::new(0x0102_0304, 0).around(b"event"), b"\0\x01\x02\x03\x04\0event");
        assert_eq!(&*Frame::new(7, 1).around(b"event"), b"\0\0\0\0\x07\x02\x02event");
        assert_eq!(&*Frame::new(u32::MAX, 100).around(b""), b"\0\xff\xff\xff\xff\x02\xc8\x01");
    }
}
