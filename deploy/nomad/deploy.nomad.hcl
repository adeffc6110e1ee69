# Topics and connector of a pipeline, once and after changes of the file:
# `nomad job run -var pipeline=pipeline.yaml deploy.nomad.hcl`. It may be run again without harm.

variable "pipeline" {
  type        = string
  description = "Path of the pipeline file, read where this command runs."
}

variable "driver" {
  type        = string
  default     = "docker"
  description = "docker, or exec or raw_exec for a binary on the clients."
}

variable "image" {
  type        = string
  default     = "cdc-coordinator:0.1.0"
  description = "For docker. Give every version a tag of its own."
}

variable "command" {
  type        = string
  default     = "/usr/local/bin/cdc-coordinator"
  description = "For exec and raw_exec."
}

variable "environment" {
  type        = map(string)
  default     = {}
  description = "Settings by variables (CDC_...), without secrets."
}

variable "secrets" {
  type        = string
  default     = "nomad/jobs/cdc-coordinator"
  description = "Path of the Nomad variable whose items are the secrets in the environment."
}

locals {
  args = ["deploy", "${NOMAD_TASK_DIR}/pipeline.yaml"]
}

job "cdc-deploy" {
  type = "batch"

  group "deploy" {
    # Kafka or Connect may still be starting.
    restart {
      attempts = 5
      interval = "10m"
      delay    = "10s"
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "deploy" {
      driver = var.driver

      config {
        image   = var.driver == "docker" ? var.image : null
        command = var.driver == "docker" ? null : var.command
        args    = local.args
      }

      env = merge({ CDC_LOG_FORMAT = "json" }, var.environment)

      template {
        destination = "local/pipeline.yaml"
        data        = file(var.pipeline)
        # The file has no template of Nomad's in it.
        left_delimiter  = "<<<"
        right_delimiter = ">>>"
      }

      template {
        destination = "secrets/cdc.env"
        env         = true
        data        = <<-EOT
          {{- if nomadVarExists "${var.secrets}" }}
          {{- with nomadVar "${var.secrets}" }}
          {{- range .Tuples }}
          {{ .K }}={{ .V | toJSON }}
          {{- end }}
          {{- end }}
          {{- end }}
        EOT
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
