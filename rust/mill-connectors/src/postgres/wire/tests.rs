use super::*;

/// A connection, and the server's side of it.
fn pair() -> (Wire, UnixStream) {
    let (own, server) = UnixStream::pair().unwrap();
    own.set_read_timeout(Some(POLL)).unwrap();
    let address = Address::new("f()", "postgresql://ann@localhost/shop", None).unwrap();
    let chunk = vec![0; READ_BYTES].into_boxed_slice();
    let wire = Wire { address, call: "f()".to_owned(), stream: Box::new(own), input: BytesMut::new(), chunk, binding: None };
    (wire, server)
}

#[test]
fn a_stream_begins_however_late_and_in_pieces_its_answer_comes() {
    let notice = b"N\0\0\0\x05\0";
    let begin = b"W\0\0\0\x07\0\0\0";
    let data = b"d\0\0\0\x05x";
    let all = [&notice[..], begin, data].concat();
    for cut in [0, 3, 6, 9, 14, 16] {
        let (mut wire, mut server) = pair();
        let all = all.clone();
        let answering = std::thread::spawn(move || {
            std::thread::sleep(POLL * 3 / 2);
            server.write_all(&all[..cut]).unwrap();
            std::thread::sleep(POLL * 3 / 2);
            server.write_all(&all[cut..]).unwrap();
            server
        });
        wire.start("START_REPLICATION", &|| false).map_err(Failure::into_error).unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match wire.next().map_err(Failure::into_error).unwrap() {
                Streamed::Data(data) => break assert_eq!(&data[..], b"x", "{cut}"),
                Streamed::Nothing => assert!(Instant::now() < end, "{cut}"),
            }
        }
        drop(answering.join().unwrap());
    }
}
