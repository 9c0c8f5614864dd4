//! TLS.

use super::super::world::World;
use super::{PLAIN, Scenario, filling};
use crate::support::{Authority, Scratch};

const SEALED: Scenario = Scenario {
    args: |scratch| {
        vec![
            format!("ssl_certificate={}", scratch.join("cert.pem")),
            "listening_port=127.0.0.1:0,127.0.0.1:0s".to_owned(),
        ]
    },
    reset: |scratch| {
        scratch.write("cert.pem", Authority::get().read("ec.pem"));
        scratch.write("root/large", filling(100_000));
    },
    ..PLAIN
};

pub fn all() -> Vec<Scenario> {
    vec![
        Scenario { name: "TLS handshake", play: handshake, ..SEALED },
        Scenario { name: "file over TLS", play: file, ..SEALED },
        Scenario { name: "TLS renewal", play: renewal, ..SEALED },
    ]
}

fn handshake(world: &mut World) -> Option<()> {
    let mut peer = world.open_sealed()?;
    for number in ["1", "2"] {
        let seen = peer.ask("GET /count HTTP/1.1\r\n\r\n");
        world.judge("a request", seen, |answer| answer.text() == number)?;
    }
    Some(())
}

fn file(world: &mut World) -> Option<()> {
    let mut peer = world.open_sealed()?;
    let seen = peer.ask("GET /large HTTP/1.1\r\n\r\n");
    world.judge("a file", seen, |answer| answer.body == filling(100_000)).map(drop)
}

fn renewal(world: &mut World) -> Option<()> {
    let path = world.scratch.join("cert.pem");
    let text = |scratch: &Scratch| scratch.read("cert.pem");
    let other = Authority::get().read("other.pem");
    if text(&world.scratch) != other {
        world.scratch.write("cert.pem", other);
    }
    world.tell(&format!("set ssl_certificate {path}"), "set ", "NULL");
    handshake(world)
}
