use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame, gen_frame, parse_frame};
use amq_protocol::protocol::{AMQPClass, BasicProperties, basic, connection};
use amq_protocol::types::{AMQPValue, FieldArray, FieldTable, ShortString};
use futures_io::AsyncRead;
use proptest::collection::vec;
use proptest::prelude::*;

use super::stream::Lenient;

const FRAME_MAX: u32 = 131_072;

/// Gives its bytes out in pieces of these sizes, over and over, and is pending between them.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: std::iter::Cycle<std::vec::IntoIter<usize>>,
    pending: bool,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.pending = !self.pending;
        if self.pending {
            return Poll::Pending;
        }
        let len = self.sizes.next().unwrap().min(buf.len()).min(self.bytes.len());
        let (piece, rest) = self.bytes.split_at(len);
        buf[..len].copy_from_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(len))
    }
}

/// What comes out of the filter when it gets `bytes` in `pieces` and is read in `reads`.
fn filtered(bytes: &[u8], pieces: Vec<usize>, reads: Vec<usize>) -> Vec<u8> {
    let inner = Pieces { bytes, sizes: pieces.into_iter().cycle(), pending: false };
    let mut stream = Lenient::new(inner, Some(FRAME_MAX));
    let mut reads = reads.into_iter().cycle();
    let mut out = Vec::new();
    let mut buf = vec![0; reads.next().unwrap()];
    loop {
        match Pin::new(&mut stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buf) {
            Poll::Pending => {}
            Poll::Ready(Ok(0)) => return out,
            Poll::Ready(len) => {
                out.extend_from_slice(&buf[..len.unwrap()]);
                buf = vec![0; reads.next().unwrap()];
            }
        }
    }
}

fn whole(bytes: &[u8]) -> Vec<u8> {
    filtered(bytes, vec![usize::MAX], vec![1 << 20])
}

fn parsed(mut bytes: &[u8]) -> Vec<AMQPFrame> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (rest, frame) = parse_frame(bytes).unwrap();
        assert!(bytes.len() - rest.len() <= usize::try_from(FRAME_MAX).unwrap());
        frames.push(frame);
        bytes = rest;
    }
    frames
}

fn generated(frames: &[AMQPFrame]) -> Vec<u8> {
    frames.iter().flat_map(|frame| gen_frame(frame)(Vec::new().into()).unwrap().write).collect()
}

fn raw(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 0, 1], &size[..], payload, &[0xCE]].concat()
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn raw_header(properties: &[u8]) -> Vec<u8> {
    raw(2, &[&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], properties].concat())
}

fn headers(table: &[u8]) -> Vec<u8> {
    raw_header(&[&[0x20, 0], &sized(table)[..]].concat())
}

/// The properties of the only frame that comes out.
fn properties_of(frame: &[u8]) -> BasicProperties {
    match parsed(&whole(frame)).remove(0) {
        AMQPFrame::Header(1, header) => header.properties,
        other => panic!("{other:?}"),
    }
}

/// A delivery of which no text is text, and one as it should be.
fn two_deliveries() -> Vec<u8> {
    let deliver =
        |key: &[u8]| raw(1, &[b"\0\x3c\0\x3c\x01c\0\0\0\0\0\0\0\x01\0\x01e\x02", key].concat());
    let table = [
        b"\x02a\xffS\0\0\0\x01\xff\x01bt\x01\x01cF".to_vec(),
        sized(&[b"\x01\xffA".to_vec(), sized(b"VF\0\0\0\x03\x01\xfeVI\0\0\0\x01")].concat()),
        b"\x01dl\0\0\0\0\0\0\0\x01".to_vec(),
    ];
    let properties = [&[0x30, 0xa0], &sized(&table.concat())[..], b"\x02\x02\xff\\\x01\xc3"];
    let good = [&[0x80, 0], &b"\x04text"[..]];
    [
        deliver(b"\xff\xfe"),
        raw_header(&properties.concat()),
        raw(3, b"\x01\0"),
        raw(8, b""),
        deliver("ü".as_bytes()),
        raw_header(&good.concat()),
        raw(3, b"{}"),
    ]
    .concat()
}

#[test]
fn texts_that_are_none_come_out_as_their_bytes_and_the_rest_as_it_was() {
    let bytes = two_deliveries();
    let out = whole(&bytes);
    let frames = parsed(&out);
    assert_eq!(frames.len(), 7);
    let key = |frame: &AMQPFrame| match frame {
        AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver))) => {
            assert_eq!((deliver.consumer_tag.as_str(), deliver.delivery_tag), ("c", 1));
            deliver.routing_key.to_string()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(key(&frames[0]), "\u{1a}\\xff\\xfe");
    assert_eq!(key(&frames[4]), "ü");
    let AMQPFrame::Header(1, AMQPContentHeader { properties, body_size: 2, .. }) = &frames[1]
    else {
        panic!("{:?}", frames[1]);
    };
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "\u{1a}\\xff\\x5c");
    assert_eq!(properties.kind().as_ref().unwrap().as_str(), "\u{1a}\\xc3");
    let mut inner = FieldTable::default();
    inner.insert("\u{1a}\\xfe".into(), AMQPValue::Void);
    let items = vec![AMQPValue::Void, AMQPValue::FieldTable(inner), AMQPValue::LongInt(1)];
    let mut outer = FieldTable::default();
    outer.insert("\u{1a}\\xff".into(), AMQPValue::FieldArray(FieldArray::from(items)));
    let mut table = FieldTable::default();
    table.insert("\u{1a}a\\xff".into(), AMQPValue::LongString(vec![0xff].into()));
    table.insert("b".into(), AMQPValue::Boolean(true));
    table.insert("c".into(), AMQPValue::FieldTable(outer));
    table.insert("d".into(), AMQPValue::LongLongInt(1));
    assert_eq!(properties.headers().as_ref(), Some(&table));
    assert!(out.ends_with(&bytes[bytes.len() - 60..]), "the good one is as it was");
}

#[test]
fn a_stream_may_be_cut_anywhere() {
    let bytes = two_deliveries();
    let expected = whole(&bytes);
    for cut in 1..bytes.len() {
        for read in [1, 3, 9, 1 << 20] {
            let out = filtered(&bytes, vec![cut, usize::MAX], vec![read]);
            assert_eq!(out, expected, "cut {cut}, read {read}");
        }
        assert_eq!(filtered(&bytes, vec![cut], vec![1 << 20]), expected, "in {cut} each");
    }
}

#[test]
fn a_text_grows_to_the_255_bytes_of_amqp_and_no_further() {
    for (len, shown) in [(63, 63), (64, 63), (255, 63)] {
        let id = vec![0xff; len];
        let properties =
            properties_of(&raw_header(&[&[0, 0x80, u8::try_from(len).unwrap()], &id[..]].concat()));
        let expected = format!("\u{1a}{}", "\\xff".repeat(shown));
        assert_eq!(properties.message_id().as_ref().unwrap().as_str(), expected);
    }
}

#[test]
fn every_method_that_quotes_a_sender_can_be_read() {
    let table: [&[u8]; 5] = [
        b"\0\x3c\0\x32\0\0\x01\xff\x01\xff\x01\xff",
        b"\0\x3c\0\x3c\x01\xff\0\0\0\0\0\0\0\x01\0\x01\xff\x01\xff",
        b"\0\x3c\0\x47\0\0\0\0\0\0\0\x01\0\x01\xff\x01\xff\0\0\0\0",
        b"\0\x0a\0\x32\0\0\x01\xff\0\0\0\0",
        b"\0\x14\0\x28\0\0\x01\xff\0\0\0\0",
    ];
    for payload in table {
        assert!(parse_frame(&raw(1, payload)[..]).is_err(), "{payload:?}");
        assert_eq!(parsed(&whole(&raw(1, payload))).len(), 1, "{payload:?}");
    }
}

#[test]
fn headers_below_a_depth_are_bytes() {
    let nested = |levels: usize| {
        let value = (1..levels)
            .fold(b"A\0\0\0\0".to_vec(), |value, _| [b"A".to_vec(), sized(&value)].concat());
        headers(&[b"\x01n", &value[..]].concat())
    };
    assert_eq!(whole(&nested(31)), nested(31));
    for levels in [32, 100, 20_000] {
        let properties = properties_of(&nested(levels));
        let table = properties.headers().as_ref().unwrap();
        let mut value = &table.inner()["n"];
        let mut depth = 0;
        while let AMQPValue::FieldArray(items) = value {
            depth += 1;
            value = &items.as_slice()[0];
        }
        let AMQPValue::ByteArray(bytes) = value else { panic!("{value:?}") };
        assert_eq!((depth, bytes.len()), (31, (levels - 32) * 5), "{levels}");
    }
}

#[test]
fn properties_that_cannot_be_read_are_given_up_but_for_their_bytes() {
    let at_most = usize::try_from(FRAME_MAX).unwrap() - 8 - 12 - 2 - 4;
    let long = |len: usize| headers(&[b"\x01nS", &sized(&vec![b'x'; len - 7])[..]].concat());
    assert_eq!(whole(&long(at_most)), long(at_most));
    let grows = [b"\x01\xffS", &sized(&vec![b'x'; at_most - 7])[..]].concat();
    let table = [
        long(at_most + 1),
        headers(&grows),
        headers(b"\x01nz"),
        headers(b"\x01nF\0\0\0\x01\x05"),
        headers(b"\x01nS\0\0\0\x63"),
        raw_header(b"\x00\x80\x09a"),
        raw_header(b"\x00\x00left over"),
    ];
    for frame in table {
        let properties = properties_of(&frame);
        let bytes = &frame[19..frame.len() - 1];
        let kept = bytes[..bytes.len().min(1024)].to_vec();
        let mut expected = FieldTable::default();
        expected.insert("\u{1a}".into(), AMQPValue::ByteArray(kept.into()));
        assert_eq!(properties, BasicProperties::default().with_headers(expected));
    }
}

#[test]
fn the_lower_limit_of_client_and_broker_holds() {
    let tune = |frame_max| {
        let tune = connection::Tune { channel_max: 9, frame_max, heartbeat: 10 };
        let tune = connection::AMQPMethod::Tune(tune);
        generated(&[AMQPFrame::Method(0, AMQPClass::Connection(tune))])
    };
    let header = headers(&[b"\x01nS", &sized(&[b'x'; 8192])[..]].concat());
    for (broker, passes) in [(0, true), (8192, false), (FRAME_MAX, true), (u32::MAX, true)] {
        let out = whole(&[tune(broker), header.clone()].concat());
        assert_eq!(out.ends_with(&header), passes, "{broker}");
        assert!(out.starts_with(&tune(broker)), "{broker}");
    }
}

#[test]
fn what_is_no_frame_passes_and_an_end_is_an_end() {
    let large = raw(1, &vec![0; 1 << 20]);
    let bad = two_deliveries();
    let without_end = [&raw(1, b"")[..7], b"?", &bad].concat();
    let begun = &raw_header(b"\0\0")[..9];
    let table: [&[u8]; 6] = [b"AMQP\0\0\x09\x01", b"", &[8, 0, 1], &large, &without_end, begun];
    for bytes in table {
        assert_eq!(whole(bytes), bytes);
    }
    assert!(whole(&[bad, begun.to_vec()].concat()).ends_with(begun));
}

fn text() -> impl Strategy<Value = ShortString> {
    "\\PC{0,60}".prop_map(|text| ShortString::from(text.as_str()))
}

fn value() -> impl Strategy<Value = AMQPValue> {
    let leaf = prop_oneof![
        Just(AMQPValue::Void),
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        vec(any::<u8>(), 0..20).prop_map(|bytes| AMQPValue::LongString(bytes.into())),
        vec(any::<u8>(), 0..20).prop_map(|bytes| AMQPValue::ByteArray(bytes.into())),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| AMQPValue::FieldArray(items.into())),
            table(inner).prop_map(AMQPValue::FieldTable),
        ]
    })
}

fn table(value: impl Strategy<Value = AMQPValue>) -> impl Strategy<Value = FieldTable> {
    vec((text(), value), 0..4).prop_map(|entries| {
        let mut table = FieldTable::default();
        for (name, value) in entries {
            table.insert(name, value);
        }
        table
    })
}

fn frame() -> impl Strategy<Value = AMQPFrame> {
    let deliver = (text(), text(), any::<u64>()).prop_map(|(exchange, routing_key, tag)| {
        let deliver = basic::Deliver {
            consumer_tag: "tag".into(),
            delivery_tag: tag,
            redelivered: tag % 2 == 0,
            exchange,
            routing_key,
        };
        AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Deliver(deliver)))
    });
    let ack = any::<u64>().prop_map(|delivery_tag| {
        let ack = basic::Ack { delivery_tag, multiple: false };
        AMQPFrame::Method(1, AMQPClass::Basic(basic::AMQPMethod::Ack(ack)))
    });
    let header = (text(), text(), table(value())).prop_map(|(id, kind, headers)| {
        let properties = BasicProperties::default()
            .with_message_id(id)
            .with_type(kind)
            .with_timestamp(7)
            .with_headers(headers);
        AMQPFrame::Header(1, AMQPContentHeader { class_id: 60, body_size: 9, properties })
    });
    let body = vec(any::<u8>(), 0..500).prop_map(|bytes| AMQPFrame::Body(1, bytes));
    prop_oneof![deliver, ack, header, body, Just(AMQPFrame::Heartbeat)]
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1..20_usize, 1..2000_usize], 1..8)
}

proptest! {
    #[test]
    fn a_readable_stream_passes_unchanged(
        frames in vec(frame(), 0..12), pieces in sizes(), reads in sizes(),
    ) {
        let bytes = generated(&frames);
        prop_assert_eq!(filtered(&bytes, pieces, reads), bytes);
    }

    #[test]
    fn any_properties_can_be_read(properties in vec(any::<u8>(), 2..80), table in any::<bool>()) {
        let frame = if table { headers(&properties) } else { raw_header(&properties) };
        let out = whole(&frame);
        prop_assert_eq!(parsed(&out).len(), 1);
        prop_assert_eq!(parse_frame(&frame[..]).is_ok(), out == frame);
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in vec(prop_oneof![0..4_u8, Just(60), Just(0xCE), any::<u8>()], 0..400),
        pieces in sizes(), reads in sizes(),
    ) {
        let out = filtered(&bytes, pieces, reads);
        prop_assert_eq!(out, whole(&bytes));
    }
}
