//! What a worker says to its node: any bytes, cut anywhere.
#![no_main]

use evener_protocol::Inbox;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&cut, bytes)) = bytes.split_first() else { return };
    let mut inbox = Inbox::new(1 << 20);
    for piece in bytes.chunks(usize::from(cut).max(1)) {
        let mut piece = piece;
        while !piece.is_empty() {
            let room = inbox.room();
            let count = room.len().min(piece.len());
            room[..count].copy_from_slice(&piece[..count]);
            inbox.filled(count);
            piece = &piece[count..];
            loop {
                match inbox.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            if cut % 7 == 6 {
                inbox.drop_result();
            }
            assert!(inbox.held() <= 1 << 20, "more is kept than may be");
        }
    }
});
