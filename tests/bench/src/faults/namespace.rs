//! Two network namespaces, with a cable between them for each gateway.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The namespaces of the gateways and of the control plane. Dropping it removes both.
#[derive(Debug)]
pub(super) struct Namespaces {
    gateways: String,
    control: String,
}

// === impl Namespaces ===

impl Namespaces {
    /// Makes them.
    pub(super) fn create(cables: usize) -> Result<Self> {
        let id = std::process::id();
        let names = Self {
            gateways: format!("forebay-{id}-gateways"),
            control: format!("forebay-{id}-control"),
        };
        for name in [&names.gateways, &names.control] {
            ip(&["netns", "add", name])
                .context("network namespaces need root, and `ip` of the Debian package iproute2")?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        for number in 0..cables {
            let (here, there) = (cable(number), cable(number));
            ip(&[
                "-n",
                &names.gateways,
                "link",
                "add",
                &here,
                "type",
                "veth",
                "peer",
                "name",
                &there,
                "netns",
                &names.control,
            ])?;
            for (name, is_control) in [(&names.gateways, false), (&names.control, true)] {
                let address = format!("{}/30", address(number, is_control));
                ip(&["-n", name, "addr", "add", &address, "dev", &cable(number)])?;
                ip(&["-n", name, "link", "set", &cable(number), "up"])?;
            }
        }
        Ok(names)
    }

    /// Name of the control plane's.
    pub(super) fn control(&self) -> &str {
        &self.control
    }

    /// A command that becomes another one in the gateways' namespace.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.gateways]);
        command
    }

    /// Cuts a gateway off. For a process in the gateways' namespace.
    pub(super) fn cut(number: usize) -> Result<()> {
        ip(&["link", "set", &cable(number), "down"])
    }

    /// Connects it again.
    pub(super) fn mend(number: usize) -> Result<()> {
        ip(&["link", "set", &cable(number), "up"])
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in [&self.gateways, &self.control] {
            // One that could not be made is as good as removed.
            ip(&["netns", "del", name]).unwrap_or_default();
        }
    }
}

/// An end of a cable.
pub(super) fn address(number: usize, is_control: bool) -> IpAddr {
    let number = u8::try_from(number).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 231, number, if is_control { 2 } else { 1 }).into()
}

fn cable(number: usize) -> String {
    format!("cable-{number}")
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("`ip` cannot be started")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
